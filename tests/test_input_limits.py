"""What metadata may hold: what is refused, by both doors, and what the message says."""

from typing import Any

import pytest

from tests.support.service import JSON, UPDATE, Client

pytestmark = pytest.mark.any_engine

REFUSED: dict[str, tuple[Any, str]] = {
    "a list much too long": ([1] * 400_000, "takes more than 65536 bytes as JSON"),
    "a list a little too long": ([1] * 32_766, "takes more than 65536 bytes as JSON"),
    "many small lists": ([[]] * 60_000, "takes more than 65536 bytes as JSON"),
    "a text too long": ("x" * 65_530, "takes more than 65536 bytes as JSON"),
    "a text too long in UTF-8": ("É" * 32_770, "takes more than 65536 bytes as JSON"),
    "many members": ({f"m{n}": n for n in range(20_000)}, "takes more than 65536 bytes as JSON"),
    "a name too long": ({"x" * 65_530: 1}, "takes more than 65536 bytes as JSON"),
    "an integer": ([0, {"b": [2**63]}], "metadata.a.1.b.0 is an integer beyond 64 bits"),
    "a text": ([0, ["\0"]], "metadata.a.1.0 holds the character NUL"),
    "a name": ([0, {"\0": 1}], "metadata.a.1 has a member whose name holds the character NUL"),
}


@pytest.fixture
async def entry(author: Client) -> JSON:
    return await author.create_activity(await author.create_ticket())


@pytest.mark.parametrize(("value", "said"), REFUSED.values(), ids=REFUSED)
async def test_what_metadata_may_not_hold_is_named(
    author: Client, entry: JSON, value: Any, said: str
) -> None:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}

    by_put = await author.put(entry["ticketId"], entry["id"], {"metadata": {"a": value}})
    by_mutation = await author.mutate(UPDATE, **ids, metadata={"a": value})

    [error] = by_mutation["userErrors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "metadata"])
    assert said in error["message"]
    assert (by_put.status_code, by_put.json()["detail"]) == (422, error["message"])


@pytest.mark.parametrize(
    "value", [[1] * 32_763, "x" * 65_528, "É" * 32_764, [[]] * 20_000], ids=lambda v: str(v)[:9]
)
async def test_metadata_just_within_the_limit_is_kept(
    author: Client, entry: JSON, value: Any
) -> None:
    response = await author.put(entry["ticketId"], entry["id"], {"metadata": {"a": value}})

    assert response.json()["metadata"] == {"a": value}


@pytest.mark.parametrize(
    "value", [[1] * 100_000, {"a": 1}, "x" * 100_000], ids=lambda v: str(v)[:9]
)
async def test_a_wrong_id_is_not_written_out(author: Client, entry: JSON, value: Any) -> None:
    """An id of ours is an ID, which takes any text; another is checked as a UUID."""
    filtered = """query Q($id: ID!, $actorId: UUID) { ticket(id: $id) {
      activities(filter: { actorId: $actorId }) { totalCount } } }"""

    updated = await author.graphql(UPDATE, input={"ticketId": value, "activityId": entry["id"]})
    listed = await author.graphql(filtered, id=entry["ticketId"], actorId=value)

    [by_id] = updated.get("errors") or updated["data"]["updateTicketActivity"]["userErrors"]
    [by_uuid] = listed["errors"]
    if isinstance(value, str):
        assert "must be a UUID in canonical form" in by_id["message"]
    assert "must be a UUID in canonical form" in by_uuid["message"]
    assert max(len(error["message"]) for error in (by_id, by_uuid)) < 400
