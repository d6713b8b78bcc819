"""Creating and updating entries through GraphQL."""

from typing import Any
from uuid import UUID, uuid5

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth import Scope
from app.settings import Settings
from tests.support.service import (
    CREATE_ACTIVITY,
    CREATE_TICKET,
    JSON,
    UPDATE,
    Client,
    Service,
    start,
)

ID = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"
OTHER_ID = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9f"


def code_of(payload: JSON) -> str | None:
    """The code of the one user error; None where there is none."""
    if not payload["userErrors"]:
        return None
    [error] = payload["userErrors"]
    return str(error["code"])


@pytest.fixture
async def moderator(service: Service) -> Client:
    return await service.client(Scope.READ, Scope.MODERATE)


@pytest.fixture
async def entry(author: Client) -> JSON:
    ticket_id = await author.create_ticket()
    return await author.create_activity(ticket_id, message="before", metadata={"a": {"b": 1}})


async def update(client: Client, entry: JSON, **fields: Any) -> JSON:
    return await client.mutate(
        UPDATE, **{"ticketId": entry["ticketId"], "activityId": entry["id"]} | fields
    )


# Create


async def test_a_ticket_is_created_with_the_entry_that_opens_it(
    service: Service, author: Client
) -> None:
    payload = await author.mutate(CREATE_TICKET, message="opened", metadata={"by": "mail"})

    ticket, opened = payload["ticket"], payload["ticketActivity"]
    assert ticket["createdAt"] == opened["createdAt"] == "2026-11-23T15:07:05.514Z"
    assert UUID(ticket["id"]).version == 7
    assert opened["id"] == str(uuid5(UUID(ticket["id"]), "ticket_created"))
    assert opened["activityType"] == "TICKET_CREATED"
    assert (opened["message"], opened["metadata"]) == ("opened", {"by": "mail"})
    assert opened["actorId"] == opened["updatedById"] == str(author.actor_id)
    assert (opened["version"], opened["isEdited"], opened["isPrivate"]) == (1, False, False)
    assert len(await service.history(ticket["id"])) == 1


async def test_a_new_entry_has_what_was_given_and_a_new_id(author: Client) -> None:
    ticket_id = await author.create_ticket()

    entry = await author.create_activity(
        ticket_id, activityType="DOCUMENT_UPLOAD", documentId=ID, isPrivate=True
    )

    assert UUID(entry["id"]).version == 7
    assert entry["documentId"] == ID
    assert (entry["isPrivate"], entry["message"], entry["metadata"]) == (True, None, {})
    assert await author.find(ticket_id, entry["id"]) == entry


@pytest.mark.parametrize("mutation", [CREATE_TICKET, CREATE_ACTIVITY])
async def test_the_same_creation_again_answers_what_exists(
    service: Service, author: Client, mutation: str
) -> None:
    ticket_id = await author.create_ticket()
    input_: JSON = {"id": ID, "message": "once", "metadata": {"a": [1, 2]}}
    if mutation == CREATE_ACTIVITY:
        input_ |= {"ticketId": ticket_id, "activityType": "COMMENT"}

    first = await author.mutate(mutation, **input_)
    service.clock.advance(hours=1)
    again = await author.mutate(mutation, **input_)

    assert first == again
    assert len(await service.history(first["ticketActivity"]["ticketId"])) in {1, 2}


async def test_a_retry_after_an_update_answers_the_entry_as_it_is(author: Client) -> None:
    input_ = {"ticketId": await author.create_ticket(), "id": ID, "activityType": "COMMENT"}
    created = (await author.mutate(CREATE_ACTIVITY, **input_))["ticketActivity"]
    await update(author, created, message="changed since")

    again = await author.mutate(CREATE_ACTIVITY, **input_)

    assert code_of(again) is None
    assert again["ticketActivity"]["message"] == "changed since"
    assert again["ticketActivity"]["version"] == 2


@pytest.mark.parametrize(
    "other",
    [
        {"message": "other"},
        {"metadata": {"a": 1}},
        {"isPrivate": True},
        {"activityType": "VIEW"},
    ],
)
async def test_an_id_in_use_with_other_content_is_taken(author: Client, other: JSON) -> None:
    input_ = {"ticketId": await author.create_ticket(), "id": ID, "activityType": "COMMENT"}
    await author.mutate(CREATE_ACTIVITY, **input_)

    payload = await author.mutate(CREATE_ACTIVITY, **input_ | other)

    assert code_of(payload) == "ID_TAKEN"
    assert payload["ticketActivity"] is None
    assert payload["userErrors"][0]["path"] == ["input", "id"]


async def test_an_id_is_taken_for_other_actors_tickets_and_types(
    service: Service, author: Client
) -> None:
    ticket_id = await author.create_ticket(id=OTHER_ID)
    input_ = {"ticketId": ticket_id, "id": ID, "activityType": "COMMENT"}
    await author.mutate(CREATE_ACTIVITY, **input_)
    other = await service.client()

    for client, changed in (
        (other, {}),
        (author, {"ticketId": await author.create_ticket()}),
        (author, {"id": OTHER_ID}),
    ):
        payload = await client.mutate(CREATE_ACTIVITY, **input_ | changed)
        assert code_of(payload) == "ID_TAKEN"
    assert code_of(await author.mutate(CREATE_TICKET, id=ID)) == "ID_TAKEN"


async def test_system_entries_need_the_scope_to_moderate(author: Client, moderator: Client) -> None:
    input_ = {"ticketId": await author.create_ticket(), "activityType": "FIELD_CHANGE"}

    refused = await author.mutate(CREATE_ACTIVITY, **input_)
    created = await moderator.mutate(CREATE_ACTIVITY, **input_)

    assert refused["userErrors"] == [
        {
            "code": "FORBIDDEN",
            "message": "SYSTEM_ENTRY: system entries need the scope activity:moderate.",
            "path": ["input", "activityType"],
            "reasons": ["SYSTEM_ENTRY"],
        }
    ]
    assert code_of(created) is None


@pytest.mark.parametrize(
    ("fields", "code", "path"),
    [
        ({"activityType": "TICKET_CREATED"}, "INVALID_INPUT", "activityType"),
        ({"activityType": "DOCUMENT_UPLOAD"}, "INVALID_INPUT", "documentId"),
        ({"documentId": ID}, "INVALID_INPUT", "documentId"),
        ({"id": None}, "INVALID_INPUT", "id"),
        ({"id": ""}, "INVALID_INPUT", "id"),
        ({"id": "x"}, "INVALID_INPUT", "id"),
        ({"ticketId": "x"}, "INVALID_INPUT", "ticketId"),
        ({"message": "a\0b"}, "INVALID_INPUT", "message"),
        ({"message": "x" * 65_537}, "INVALID_INPUT", "message"),
        ({"metadata": {"a": 2**63}}, "INVALID_INPUT", "metadata"),
        ({"ticketId": ID}, "NOT_FOUND", "ticketId"),
    ],
)
async def test_a_creation_that_breaks_a_rule_says_where_and_leaves_no_trace(
    service: Service, author: Client, fields: JSON, code: str, path: str
) -> None:
    ticket_id = await author.create_ticket()

    payload = await author.mutate(
        CREATE_ACTIVITY, **{"ticketId": ticket_id, "activityType": "COMMENT"} | fields
    )

    assert code_of(payload) == code
    assert payload["userErrors"][0]["path"][:2] == ["input", path]
    assert payload["userErrors"][0]["reasons"] == []
    assert payload["ticketActivity"] is None
    assert len(await service.history(ticket_id)) == 1


# Update


async def test_an_update_says_who_and_when_and_leaves_the_rest(
    service: Service, author: Client, entry: JSON, moderator: Client
) -> None:
    service.clock.advance(minutes=5)

    updated = (await update(moderator, entry, message="after"))["ticketActivity"]

    assert updated["message"] == "after"
    assert updated["updatedAt"] == "2026-11-23T15:12:05.514Z"
    assert updated["updatedById"] == str(moderator.actor_id)
    assert (updated["version"], updated["isEdited"]) == (2, True)
    kept = ("id", "ticketId", "activityType", "isPrivate", "createdAt", "actorId", "metadata")
    assert {name: updated[name] for name in kept} == {name: entry[name] for name in kept}


async def test_absent_keeps_and_null_clears(author: Client, entry: JSON) -> None:
    assert (await update(author, entry))["ticketActivity"]["message"] == "before"
    assert (await update(author, entry, message=None))["ticketActivity"]["message"] is None


@pytest.mark.parametrize("fields", [{}, {"message": "before"}, {"metadataPatch": {}}])
async def test_an_update_that_changes_nothing_leaves_no_trace(
    service: Service, author: Client, entry: JSON, fields: JSON
) -> None:
    service.clock.advance(minutes=5)

    payload = await update(author, entry, **fields)

    assert payload["ticketActivity"] == entry
    assert len(await service.history(entry["ticketId"])) == 2


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"isPrivate": None}, "isPrivate"),
        ({"metadata": None}, "metadata"),
        ({"metadataPatch": None}, "metadataPatch"),
        ({"metadata": {}, "metadataPatch": {}}, "metadataPatch"),
        ({"expectedVersion": 0}, "expectedVersion"),
        ({"expectedVersion": None}, "expectedVersion"),
        ({"metadataPatch": {"a": 2**63}}, "metadataPatch"),
        ({"metadataPatch": {"b": "x" * 65_530}}, "metadata"),
    ],
)
async def test_an_update_that_breaks_a_rule_says_where_and_changes_nothing(
    service: Service, author: Client, entry: JSON, fields: JSON, path: str
) -> None:
    payload = await update(author, entry, message="after", **fields)

    assert code_of(payload) in {"INVALID_INPUT", "VERSION_CONFLICT"}
    assert payload["userErrors"][0]["path"][1].startswith(path)
    assert await author.find(entry["ticketId"], entry["id"]) == entry
    assert len(await service.history(entry["ticketId"])) == 2


async def test_the_expected_version_guards_the_update(author: Client, entry: JSON) -> None:
    first = await update(author, entry, message="mine", expectedVersion=1)
    second = await update(author, entry, message="too late", expectedVersion=1)

    assert code_of(first) is None
    assert code_of(second) == "VERSION_CONFLICT"
    assert second["ticketActivity"] == first["ticketActivity"]


# The examples of RFC 7396, appendix A, as far as they are about objects.
@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
async def test_a_patch_is_merged_as_rfc_7396_says(
    author: Client, original: JSON, patch: JSON, result: JSON
) -> None:
    entry = await author.create_activity(await author.create_ticket(), metadata=original)

    payload = await update(author, entry, metadataPatch=patch)

    assert payload["ticketActivity"]["metadata"] == result


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcé🙂"), inner),
    max_leaves=20,
)


@given(metadata=st.dictionaries(st.text("abcé🙂"), VALUES), message=st.text("a\n\té漢🙂"))
@hypothesis_settings(max_examples=25)
def test_what_is_accepted_comes_back_as_the_same_value(
    blank: Settings, metadata: JSON, message: str
) -> None:
    async def run() -> None:
        async with start(blank) as service:
            author = await service.client()
            entry = await author.create_activity(await author.create_ticket())
            await update(author, entry, metadata=metadata, message=message)
            found = await author.find(entry["ticketId"], entry["id"])
            assert found
            assert found["message"] == message
            assert repr(found["metadata"]) == repr(metadata)

    anyio.run(run)


# Ids


@pytest.mark.parametrize(
    "value",
    [
        "{0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e}",
        "urn:uuid:0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e",
        "0190a3f05c1e7b2a9d3e4f5a6b7c8d9e",
        "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9",
        "0190a3f0-5c1e-0b2a-9d3e-4f5a6b7c8d9e",
        "",
        1,
    ],
)
async def test_an_id_that_is_none_is_refused(author: Client, entry: JSON, value: Any) -> None:
    for name in ("ticketId", "activityId"):
        payload = await update(author, entry, **{name: value})
        [error] = payload["userErrors"]
        assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", name])
        assert error["message"].startswith(f"{name} must be a UUID in canonical form, such as ")


async def test_an_id_in_capitals_is_the_same_id(author: Client, entry: JSON) -> None:
    found = await author.find(entry["ticketId"].upper(), entry["id"].upper())

    assert found == entry


async def test_a_mutation_without_the_scope_to_read_is_forbidden(
    service: Service, entry: JSON, author: Client
) -> None:
    writer = await service.client(Scope.WRITE, actor_id=author.actor_id)

    payload = await update(writer, entry, message="after")

    assert payload["userErrors"] == [
        {
            "code": "FORBIDDEN",
            "message": "MISSING_SCOPE: the token lacks the scope activity:read.",
            "path": None,
            "reasons": ["MISSING_SCOPE"],
        }
    ]
