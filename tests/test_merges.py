"""`mergeTickets`: a fact of two tickets, which changes nothing of their entries."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from app.auth import Scope
from app.settings import Settings
from app.store.migrate import alembic_config
from tests.support.live import feed
from tests.support.service import (
    CREATE_ACTIVITY,
    JSON,
    MERGE,
    UPDATE,
    Client,
    Service,
    activity_url,
    start,
)
from tests.test_delete import DELETE
from tests.test_migrations import on_database
from tests.test_redact import REDACT
from tests.test_restore import RESTORE

MERGED_INTO = "query MergedInto($id: ID!) { ticket(id: $id) { mergedInto { id } } }"
UNKNOWN = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"


@pytest.fixture
async def moderator(service: Service) -> Client:
    return await service.client(*Scope)


@pytest.fixture
async def tickets(moderator: Client) -> list[str]:
    return [await moderator.create_ticket() for _ in range(4)]


async def merged_into(client: Client, ticket_id: str) -> str | None:
    document = await client.graphql(MERGED_INTO, id=ticket_id)
    target = document["data"]["ticket"]["mergedInto"]
    return target and str(target["id"])


async def merge(client: Client, source: str, target: str) -> JSON:
    """Merge, and return the entry on the source."""
    payload = await client.mutate(MERGE, sourceId=source, targetId=target)
    assert payload["userErrors"] == []
    entry: JSON = payload["mergedInto"]
    return entry


async def update(client: Client, entry: JSON, **changes: Any) -> JSON:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    return await client.mutate(UPDATE, **ids, **changes)


async def delete(client: Client, entry: JSON) -> None:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    assert (await client.mutate(DELETE, **ids))["userErrors"] == []


async def test_both_tickets_get_an_entry_that_names_the_other(
    service: Service, moderator: Client, tickets: list[str]
) -> None:
    source, target, *_ = tickets

    payload = await moderator.mutate(MERGE, sourceId=source, targetId=target)

    assert payload["userErrors"] == []
    assert payload["source"] == {"id": source, "mergedInto": {"id": target}}
    assert payload["target"] == {
        "id": target,
        "mergedInto": None,
        "activities": {"totalCount": 2},
    }
    for name, ticket_id, other in (
        ("mergedInto", source, target),
        ("mergedFrom", target, source),
    ):
        entry = payload[name]
        assert (entry["ticketId"], entry["metadata"]) == (ticket_id, {"ticketId": other})
        assert entry["actorId"] == str(moderator.actor_id)
        assert await moderator.find(ticket_id, entry["id"]) == entry
        assert [seq for seq, *_ in await service.history(ticket_id)] == [1, 2]
        assert (await feed(moderator, ticket_id))["nodes"][-1]["activityId"] == entry["id"]
    assert payload["mergedInto"]["activityType"] == "MERGED_INTO"
    assert payload["mergedFrom"]["activityType"] == "MERGED_FROM"


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        (0, UNKNOWN, ("NOT_FOUND", "targetId", f"There is no ticket {UNKNOWN}.")),
        (UNKNOWN, 0, ("NOT_FOUND", "sourceId", f"There is no ticket {UNKNOWN}.")),
        (0, 0, ("INVALID_INPUT", "targetId", "A ticket cannot be merged into itself.")),
        ("x", 0, ("INVALID_INPUT", "sourceId", None)),
        (0, "", ("INVALID_INPUT", "targetId", None)),
        (1, 0, ("TICKET_MERGED", "sourceId", "The ticket {1} was merged into {2} already.")),
        (0, 1, ("TICKET_MERGED", "targetId", "The ticket {1} was merged into {2} already.")),
        (2, 1, ("TICKET_MERGED", "targetId", "The ticket {1} was merged into {2} already.")),
    ],
    ids=str,
)
async def test_a_merge_that_cannot_be_is_refused_with_a_code(
    service: Service, moderator: Client, tickets: list[str], source: Any, target: Any, error: Any
) -> None:
    await merge(moderator, tickets[1], tickets[2])
    ids = [tickets[one] if isinstance(one, int) else one for one in (source, target)]

    payload = await moderator.mutate(MERGE, sourceId=ids[0], targetId=ids[1])

    code, path, message = error
    [found] = payload.pop("userErrors")
    assert set(payload.values()) == {None}
    assert (found["code"], found["path"]) == (code, ["input", path])
    assert message is None or found["message"] == message.format(*tickets)
    assert await merged_into(moderator, tickets[0]) is None
    assert len(await service.history(tickets[0])) == 1


async def test_a_repeat_under_an_idempotency_key_merges_once(
    service: Service, moderator: Client, tickets: list[str]
) -> None:
    entry = await moderator.create_activity(tickets[2], message="a secret")
    variables = {"input": {"sourceId": tickets[0], "targetId": tickets[1]}}
    body, headers = {"query": MERGE, "variables": variables}, {"Idempotency-Key": "one"}
    first = await moderator.request("POST", "/graphql", json=body, headers=headers)
    ids = {"ticketId": tickets[2], "activityId": entry["id"]}
    same = await moderator.request("POST", "/graphql", json=body, headers=headers)
    # A redaction removes answers that may show what is redacted: the next is made anew.
    await moderator.mutate(REDACT, **ids, reason="It was a secret.")

    anew = await moderator.request("POST", "/graphql", json=body, headers=headers)

    payload = first.json()["data"]["mergeTickets"]
    assert payload["userErrors"] == []
    assert same.content == first.content
    assert anew.json()["data"]["mergeTickets"] == payload | {"mergedFrom": None}
    assert [len(await service.history(ticket_id)) for ticket_id in tickets[:2]] == [2, 2]


async def test_it_needs_the_scope_to_moderate(service: Service, tickets: list[str]) -> None:
    author = await service.client(Scope.READ, Scope.WRITE, Scope.PRIVATE)

    payload = await author.mutate(MERGE, sourceId=tickets[0], targetId=tickets[1])

    assert payload["userErrors"] == [
        {
            "code": "FORBIDDEN",
            "message": "MISSING_SCOPE: the token lacks the scope activity:moderate.",
            "path": None,
            "reasons": ["MISSING_SCOPE"],
        }
    ]


async def test_tickets_are_not_merged_into_each_other(
    moderator: Client, tickets: list[str]
) -> None:
    one, other, *_ = tickets

    payloads = await asyncio.gather(
        moderator.mutate(MERGE, sourceId=one, targetId=other),
        moderator.mutate(MERGE, sourceId=other, targetId=one),
    )

    codes = [[error["code"] for error in payload["userErrors"]] for payload in payloads]
    assert sorted(codes) == [[], ["TICKET_MERGED"]]
    found = [await merged_into(moderator, ticket_id) for ticket_id in (one, other)]
    assert found == ([other, None] if codes[0] == [] else [None, one])


@given(
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=12),
    group=st.sampled_from([1, 4, 12]),
)
@settings(max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True)
async def test_merges_never_make_a_circle(
    blank: Settings, steps: list[tuple[int, int, bool]], group: int
) -> None:
    async with start(blank) as service:
        moderator = await service.client(*Scope)
        tickets = [await moderator.create_ticket() for _ in range(4)]
        entries: dict[str, JSON] = {}

        async def carry_out(source: int, target: int, is_undone: bool) -> None:
            id_ = tickets[source]
            if is_undone and id_ in entries:
                entry = {"ticketId": id_, "activityId": entries.pop(id_)["id"]}
                assert (await moderator.mutate(DELETE, **entry))["userErrors"] == []
            elif not is_undone:
                payload = await moderator.mutate(MERGE, sourceId=id_, targetId=tickets[target])
                if not payload["userErrors"]:
                    entries[id_] = payload["mergedInto"]

        for begin in range(0, len(steps), group):
            await asyncio.gather(*(carry_out(*step) for step in steps[begin : begin + group]))

        into = {id_: await merged_into(moderator, id_) for id_ in tickets}
        assert {id_ for id_, target in into.items() if target} == set(entries)
        for id_ in tickets:
            way: list[str | None] = [id_]
            while way[-1]:
                assert way.count(way[-1]) == 1, way
                way.append(into[str(way[-1])])


# Writes to a ticket that was merged


async def refused(payload: JSON, target: str) -> bool:
    [error] = payload["userErrors"] or [None]
    if error is None:
        return False
    assert (error["code"], error["path"]) == ("TICKET_MERGED", ["input", "ticketId"])
    assert error["message"] == (
        f"The ticket was merged into {target}: write there, or set allowMerged."
    )
    return True


WRITES: dict[str, tuple[str, JSON]] = {
    "create": (CREATE_ACTIVITY, {"activityType": "COMMENT", "message": "late"}),
    "update": (UPDATE, {"message": "late"}),
    "delete": (DELETE, {}),
    "restore": (RESTORE, {"toVersion": 1}),
}


@pytest.mark.parametrize("write", WRITES)
async def test_a_merged_ticket_takes_writes_only_where_they_are_meant(
    service: Service, moderator: Client, tickets: list[str], write: str
) -> None:
    entry = await moderator.create_activity(tickets[0], message="1")
    await update(moderator, entry, message="2")
    await merge(moderator, tickets[0], tickets[1])
    mutation, fields = WRITES[write]
    ids = {"ticketId": tickets[0]} | ({} if write == "create" else {"activityId": entry["id"]})

    assert await refused(await moderator.mutate(mutation, **ids, **fields), tickets[1])
    assert len(await service.history(tickets[0])) == 4
    assert not await refused(
        await moderator.mutate(mutation, **ids, **fields, allowMerged=True), tickets[1]
    )
    assert len(await service.history(tickets[0])) == 5


async def test_a_put_to_a_merged_ticket_is_refused_likewise(
    moderator: Client, tickets: list[str]
) -> None:
    entry = await moderator.create_activity(tickets[0], message="1")
    await merge(moderator, tickets[0], tickets[1])
    url = activity_url(tickets[0], entry["id"])

    unchanged = await moderator.request("PUT", url, json={"message": "1"})
    answer = await moderator.request("PUT", url, json={"message": "2"})
    wrong = await moderator.request("PUT", f"{url}?allowMerged=1", json={"message": "2"})
    asked = await moderator.request("PUT", f"{url}?allowMerged=true", json={"message": "2"})

    assert (unchanged.status_code, unchanged.headers["ETag"]) == (200, '"1"')
    assert (answer.status_code, answer.json()["code"]) == (409, "TICKET_MERGED")
    assert answer.json()["detail"] == (
        f"The ticket was merged into {tickets[1]}: write there, or set allowMerged."
    )
    assert (wrong.status_code, wrong.json()["path"]) == (422, ["allowMerged"])
    assert (asked.status_code, asked.json()["message"]) == (200, "2")


async def test_what_is_on_a_merged_ticket_can_be_redacted(
    moderator: Client, tickets: list[str]
) -> None:
    entry = await moderator.create_activity(tickets[0], message="1")
    await merge(moderator, tickets[0], tickets[1])

    payload = await moderator.mutate(
        REDACT, ticketId=tickets[0], activityId=entry["id"], reason="It was a secret."
    )

    assert payload["userErrors"] == []


async def test_deleting_its_entry_undoes_a_merge(moderator: Client, tickets: list[str]) -> None:
    entry = await merge(moderator, tickets[0], tickets[1])

    await delete(moderator, entry)

    assert await merged_into(moderator, tickets[0]) is None
    await moderator.create_activity(tickets[0], message="goes on")
    again = await merge(moderator, tickets[0], tickets[1])
    payload = await moderator.mutate(
        REDACT, ticketId=tickets[0], activityId=entry["id"], reason="The old entry."
    )
    assert payload["userErrors"] == []
    assert await merged_into(moderator, tickets[0]) == tickets[1]
    assert again["id"] != entry["id"]


async def test_deleting_the_other_entry_does_not(moderator: Client, tickets: list[str]) -> None:
    payload = await moderator.mutate(MERGE, sourceId=tickets[0], targetId=tickets[1])

    await delete(moderator, payload["mergedFrom"])

    assert await merged_into(moderator, tickets[0]) == tickets[1]


# The entries of a merge


@pytest.mark.parametrize("kind", ["MERGED_INTO", "MERGED_FROM"])
async def test_they_are_written_by_nothing_else(
    moderator: Client, tickets: list[str], kind: str
) -> None:
    payload = await moderator.mutate(
        CREATE_ACTIVITY,
        ticketId=tickets[0],
        activityType=kind,
        metadata={"ticketId": tickets[1]},
    )

    [error] = payload["userErrors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "activityType"])
    assert error["message"] == f"A {kind.lower()} entry is written by mergeTickets alone."


@pytest.mark.parametrize("kind", ["MERGED_INTO", "MERGED_FROM"])
@pytest.mark.parametrize("target", [None, "x", UNKNOWN, 2, 1.5])
async def test_an_edit_must_go_on_naming_the_same_ticket(
    moderator: Client, tickets: list[str], kind: str, target: Any
) -> None:
    entry = await entry_of(moderator, tickets, kind)
    other = entry["metadata"]["ticketId"]
    metadata = {"ticketId": tickets[target] if isinstance(target, int) else target}

    payloads = [
        await update(moderator, entry, metadata=metadata, allowMerged=True),
        await update(moderator, entry, metadataPatch=metadata, allowMerged=True),
        await update(moderator, entry, metadata={}, allowMerged=True),
    ]
    url = f"{activity_url(entry['ticketId'], entry['id'])}?allowMerged=true"
    response = await moderator.request("PUT", url, json={"metadata": metadata})

    said = f"The metadata of a {kind.lower()} entry must go on naming {other} as ticketId."
    for payload in payloads:
        [error] = payload["userErrors"]
        assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "metadata"])
        assert error["message"] == said
    assert (response.status_code, response.json()["detail"]) == (422, said)


async def test_an_edit_of_the_rest_leaves_the_merge_alone(
    moderator: Client, tickets: list[str]
) -> None:
    entry = await merge(moderator, tickets[0], tickets[1])

    payload = await update(
        moderator,
        entry,
        message="see there",
        metadata={"ticketId": tickets[1].upper(), "reason": "twice"},
        allowMerged=True,
    )

    assert payload["userErrors"] == []
    assert await merged_into(moderator, tickets[0]) == tickets[1]


@pytest.mark.parametrize("kind", ["TICKET_CREATED", "MERGED_INTO", "MERGED_FROM"])
async def test_an_entry_that_states_a_fact_cannot_be_made_private(
    moderator: Client, tickets: list[str], kind: str
) -> None:
    entry = await entry_of(moderator, tickets, kind)

    payload = await update(moderator, entry, message="changed", isPrivate=True)
    response = await moderator.put(
        entry["ticketId"], entry["id"], {"message": "changed", "isPrivate": True}
    )

    [error] = payload["userErrors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "isPrivate"])
    assert (response.status_code, response.json()["path"]) == (422, ["isPrivate"])
    assert response.json()["detail"] == error["message"]
    assert await moderator.find(entry["ticketId"], entry["id"]) == entry


@pytest.mark.parametrize("kind", ["TICKET_CREATED", "MERGED_INTO", "MERGED_FROM"])
async def test_a_client_may_put_back_what_it_read_of_such_an_entry(
    moderator: Client, tickets: list[str], kind: str
) -> None:
    entry = await entry_of(moderator, tickets, kind)
    read = await moderator.get(entry["ticketId"], entry["id"])

    response = await moderator.put(entry["ticketId"], entry["id"], read.json())

    assert response.status_code == 200
    assert response.headers["ETag"] == read.headers["ETag"]


async def entry_of(client: Client, tickets: list[str], kind: str) -> JSON:
    if kind != "TICKET_CREATED":
        payload = await client.mutate(MERGE, sourceId=tickets[0], targetId=tickets[1])
        entry: JSON = payload["mergedInto" if kind == "MERGED_INTO" else "mergedFrom"]
        return entry
    document = await client.graphql(
        "query Q($id: ID!) { ticket(id: $id) { activities(first: 1) { nodes { id } } } }",
        id=tickets[0],
    )
    [node] = document["data"]["ticket"]["activities"]["nodes"]
    found = await client.find(tickets[0], node["id"])
    assert found
    return found


# Databases of earlier releases


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE ticket_activity SET is_private = true WHERE id = :newer", 1),
        ("UPDATE ticket_activity SET is_private = true WHERE activity_type = 'merged_into'", None),
        ("UPDATE ticket_activity SET metadata = '{}' WHERE id = :newer", 1),
        ("UPDATE ticket_activity SET deleted_at = updated_at WHERE id = :newer", 1),
        ("UPDATE ticket SET merged_into_id = NULL WHERE id != :newer", 2),
    ],
)
async def test_the_migration_mends_what_earlier_releases_left(
    settings: Settings, change: str, expected: int | None
) -> None:
    async with start(settings) as service:
        moderator = await service.client(*Scope)
        tickets = [await moderator.create_ticket() for _ in range(3)]
        older = await merge(moderator, tickets[0], tickets[1])
        await delete(moderator, older)
        newer = await merge(moderator, tickets[0], tickets[2])
        await moderator.create_activity(tickets[1], message="so that the clock counts")

    def migrate_again(connection: Connection) -> None:
        config = alembic_config(connection)
        connection.execute(text("UPDATE ticket_activity SET deleted_at = NULL"))
        command.downgrade(config, "0003")
        parameters = {"newer": UUID(newer["id"])} if ":newer" in change else {}
        connection.execute(text(change).bindparams(**parameters))
        command.upgrade(config, "head")

    await on_database(settings.database_url, migrate_again)

    async with start(settings) as service:
        reader = await service.client(*Scope)
        target = await merged_into(reader, tickets[0])
    assert target == (tickets[expected] if expected else None)
