"""`ticket-activity retain`: what is too old is gone on every path, and no feed has a silent gap."""

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlmodel import Session

from app.activity.listing import EVERYTHING
from app.activity.values import utc_now
from app.activity.visible_changes import SeenChange
from app.auth import Scope, Viewer
from app.cli import main
from app.errors import CursorExpired
from app.store import rows
from app.store.copying import count_rows
from tests.support.cursors import seq_of
from tests.support.engines import Engine
from tests.support.live import (
    FEED,
    STATE,
    event_stream,
    feed,
    follow,
    receive,
    subscribe,
    web_socket,
)
from tests.support.service import CREATE_ACTIVITY, JSON, MERGE, Client, Service, start
from tests.test_privacy import BLIND, MISSING, PATHS, answered, viewer

RESTORE = """
mutation Restore($input: RestoreTicketActivityInput!) {
  restoreTicketActivity(input: $input) {
    ticketActivity { message version } userErrors { code message path }
  }
}
"""
DELETE = """
mutation Delete($input: DeleteTicketActivityInput!) {
  deleteTicketActivity(input: $input) { userErrors { code } }
}
"""
REDACT = """
mutation Redact($input: RedactTicketActivityInput!) {
  redactTicketActivity(input: $input) { userErrors { code } }
}
"""
REVISIONS = """
query Revisions($ticketId: ID!, $activityId: ID!, $first: Int, $after: String) {
  ticketActivity(ticketId: $ticketId, activityId: $activityId) {
    redaction { reason }
    revisions(first: $first, after: $after) {
      totalCount nodes { version message } edges { cursor }
      pageInfo { hasPreviousPage hasNextPage endCursor }
    }
  }
}
"""
TIMELINE = """
query Timeline($id: ID!) {
  ticket(id: $id) {
    createdAt mergedInto { id }
    activities(first: 100, includeMerged: true) { totalCount nodes { message } }
  }
}
"""
EXPIRED = (
    "CURSOR_EXPIRED",
    "The changes after this cursor are not all kept any more: read the timeline anew, and go on "
    "after its changesCursor.",
)
OLD = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _database(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", service.settings.database_url)
    service.clock.now = OLD


def make_new(service: Service) -> None:
    """Let what is written from now on be new enough to stay."""
    service.clock.now = utc_now() - timedelta(days=1)


async def run(*arguments: str) -> int:
    """Run a command beside the service, as another process would."""
    return await asyncio.to_thread(main, arguments)


async def retain() -> None:
    assert await run("retain", "--older-than", "730d", "--apply") == 0


async def cursor_of(client: Client, ticket_id: str) -> str:
    document = await client.graphql(STATE, id=ticket_id)
    return str(document["data"]["ticket"]["changesCursor"])


async def messages(client: Client, ticket_id: str) -> tuple[int, list[str | None]]:
    document = await client.graphql(TIMELINE, id=ticket_id)
    assert "errors" not in document, document
    activities = document["data"]["ticket"]["activities"]
    return activities["totalCount"], [node["message"] for node in activities["nodes"]]


async def revisions(client: Client, entry: JSON, **arguments: Any) -> Any:
    ids = {"ticketId": entry["ticketId"], "activityId": entry["id"]}
    document = await client.graphql(REVISIONS, **ids, **arguments)
    if "errors" in document:
        return document
    return document["data"]["ticketActivity"]["revisions"]


async def count(service: Service, table: Any) -> int:
    def counted(session: Session) -> int:
        return count_rows(session, table)

    return await service.database.read(counted)


async def write_history(service: Service, author: Client) -> tuple[str, JSON]:
    """A ticket with an old entry, one changed of late, and one that is new. Return the second."""
    ticket_id = await author.create_ticket(message="opened")
    await author.create_activity(ticket_id, message="old")
    entry = await author.create_activity(ticket_id, message="first")
    for message in ("second", "third"):
        await author.put(ticket_id, entry["id"], {"message": message})
    make_new(service)
    await author.put(ticket_id, entry["id"], {"message": "fourth"})
    await author.create_activity(ticket_id, message="new")
    await author.put(ticket_id, entry["id"], {"message": "fifth"})
    return ticket_id, entry


async def test_without_apply_it_only_says_what_it_would_remove(
    service: Service, author: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket_id, _ = await write_history(service, author)
    cursor = await cursor_of(author, ticket_id)
    before = await service.history(ticket_id)

    assert await run("retain", "--older-than", "730d") == 0

    assert capsys.readouterr().out.splitlines() == [
        "2 entries",
        "5 versions in the history",
        "Nothing is changed. Run it with --apply to remove them.",
    ]
    assert await service.history(ticket_id) == before
    assert (await feed(author, ticket_id, cursor))["nodes"] == []


async def test_old_entries_and_versions_are_gone_and_the_rest_has_no_gaps(
    service: Service, author: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket_id, entry = await write_history(service, author)
    assert (await messages(author, ticket_id))[0] == 4, "the page is in memory now"

    await retain()

    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["2 entries", "5 versions in the history"]
    assert re.fullmatch(r"Removed: they were from before \S+Z\.", out[2])
    assert await messages(author, ticket_id) == (2, ["fifth", "new"])
    assert [seq for seq, *_ in await service.history(ticket_id)] == [6, 7, 8]
    page = await feed(author, ticket_id)
    assert [seq_of(service, ticket_id, node["cursor"]) for node in page["nodes"]] == [6, 7, 8]
    found = await revisions(author, entry)
    assert [(node["version"], node["message"]) for node in found["nodes"]] == [
        (4, "fourth"),
        (5, "fifth"),
    ]
    assert found["totalCount"] == 2
    assert not found["pageInfo"]["hasPreviousPage"]


async def test_running_it_again_removes_nothing_and_writing_goes_on(
    service: Service, author: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket_id, entry = await write_history(service, author)
    await retain()
    cursor = await cursor_of(author, ticket_id)
    capsys.readouterr()

    await retain()

    assert capsys.readouterr().out.splitlines()[:2] == ["0 entries", "0 versions in the history"]
    await author.put(ticket_id, entry["id"], {"message": "sixth"})
    page = await feed(author, ticket_id, cursor)
    assert [node["ticketActivity"]["version"] for node in page["nodes"]] == [6]


async def test_revisions_are_paged_from_the_oldest_that_is_kept(
    service: Service, author: Client
) -> None:
    _, entry = await write_history(service, author)
    [one, _, three, *_] = (await revisions(author, entry))["edges"]
    await retain()

    page = await revisions(author, entry, first=1)
    rest = await revisions(author, entry, first=5, after=page["pageInfo"]["endCursor"])
    assert [node["version"] for node in page["nodes"] + rest["nodes"]] == [4, 5]
    assert page["pageInfo"]["hasNextPage"]
    assert rest["pageInfo"]["hasPreviousPage"]
    after = await revisions(author, entry, after=three["cursor"])
    assert [node["version"] for node in after["nodes"]] == [4, 5], "there is no gap after 3"
    [error] = (await revisions(author, entry, after=one["cursor"]))["errors"]
    assert error["extensions"]["code"] == "CURSOR_EXPIRED"
    assert "versions" in error["message"]


async def test_a_version_that_is_not_kept_is_not_restored(service: Service, author: Client) -> None:
    ticket_id, entry = await write_history(service, author)
    await retain()
    ids = {"ticketId": ticket_id, "activityId": entry["id"]}

    refused = await author.mutate(RESTORE, **ids, toVersion=3)
    restored = await author.mutate(RESTORE, **ids, toVersion=4)

    assert refused["userErrors"] == [
        {
            "code": "INVALID_INPUT",
            "message": "Version 3 is not kept any more; the oldest one is 4.",
            "path": ["input", "toVersion"],
        }
    ]
    assert restored["ticketActivity"] == {"message": "fourth", "version": 6}


async def by_query(_origin: str, client: Client, ticket_id: str, after: str) -> JSON:
    return await client.graphql(FEED, ticketId=ticket_id, after=after)


async def by_web_socket(origin: str, client: Client, ticket_id: str, after: str) -> JSON:
    async with web_socket(origin, client.token) as ws:
        await subscribe(ws, ticketId=ticket_id, after=after)
        message = await receive(ws)
    assert message["type"] == "error", message
    return {"errors": message["payload"]}


async def by_event_stream(origin: str, client: Client, ticket_id: str, after: str) -> JSON:
    return await _over_sse(origin, client, {"ticketId": ticket_id, "after": after})


async def by_last_event_id(origin: str, client: Client, ticket_id: str, after: str) -> JSON:
    return await _over_sse(origin, client, {"ticketId": ticket_id}, **{"Last-Event-ID": after})


async def _over_sse(origin: str, client: Client, variables: JSON, **headers: str) -> JSON:
    """A stream with the error and the end: a refusal some clients take for a fault on the way."""
    async with event_stream(origin, client.token, variables, **headers) as events:
        found = [event async for event in events]
    assert [event["event"] for event in found] == ["next", "complete"]
    document: JSON = json.loads(found[0]["data"])
    return document


async def test_a_cursor_from_before_what_is_kept_has_expired_on_every_path(
    service: Service, origin: str, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    cursor = await cursor_of(author, ticket_id)
    await author.create_activity(ticket_id, message="old")
    make_new(service)
    await author.create_activity(ticket_id, message="new")
    kept = await cursor_of(author, ticket_id)

    await retain()

    for door in (by_query, by_web_socket, by_event_stream, by_last_event_id):
        [error] = (await door(origin, author, ticket_id, cursor))["errors"]
        assert (error["extensions"]["code"], error["message"]) == EXPIRED, door
    assert (await feed(author, ticket_id, kept))["nodes"] == []
    async with web_socket(origin, author.token) as ws:
        await follow(ws, ticketId=ticket_id, after=kept)
        await author.create_activity(ticket_id, message="newer")
        change = (await receive(ws))["payload"]["data"]["ticketActivityChanges"]["change"]
    assert change["ticketActivity"]["message"] == "newer"


async def test_a_cursor_of_an_emptied_ticket_goes_on(service: Service, author: Client) -> None:
    ticket_id = await author.create_ticket(message="old")
    old = await cursor_of(author, ticket_id)
    make_new(service)

    await retain()

    cursor = await cursor_of(author, ticket_id)
    assert await messages(author, ticket_id) == (0, [])
    [error] = (await by_query("", author, ticket_id, old))["errors"]
    assert error["extensions"]["code"] == "CURSOR_EXPIRED"
    await author.create_activity(ticket_id, message="new")
    [change] = (await feed(author, ticket_id, cursor))["nodes"]
    assert change["ticketActivity"]["message"] == "new"
    assert await messages(author, ticket_id) == (1, ["new"])


def itself(event: Any) -> Any:
    return event


def viewer_of(client: Client) -> Viewer:
    return Viewer(client.actor_id, "test", frozenset(Scope), "test")


async def test_a_subscriber_that_lags_behind_is_told_that_changes_are_gone(
    service: Service, author: Client
) -> None:
    """Written and removed before it was sent: imported with old times."""
    importer = await service.client(*Scope)
    make_new(service)
    ticket_id = await author.create_ticket()
    cursor = await cursor_of(author, ticket_id)
    timeline = service.app.state.timeline
    viewer = viewer_of(author)

    stream = await timeline.follow_changes(
        viewer, UUID(ticket_id), after=cursor, wanted=EVERYTHING, tell=itself
    )
    await anext(stream)  # it has begun
    await importer.create_activity(ticket_id, message="old", createdAt="2020-01-01T00:00:00Z")
    await author.create_activity(ticket_id, message="new")
    await retain()

    with pytest.raises(CursorExpired):
        await anext(stream)
    [error] = (await by_query("", author, ticket_id, cursor))["errors"]
    assert error["extensions"]["code"] == "CURSOR_EXPIRED"
    again = await timeline.follow_changes(
        viewer,
        UUID(ticket_id),
        after=await cursor_of(author, ticket_id),
        wanted=EVERYTHING,
        tell=itself,
    )
    await anext(again)
    await author.create_activity(ticket_id, message="newer")
    change = await anext(again)
    assert isinstance(change, SeenChange)
    assert change.recorded.activity.message == "newer"
    await again.aclose()


async def test_an_open_subscription_goes_on_while_older_changes_are_removed(
    service: Service, origin: str, author: Client
) -> None:
    ticket_id, _ = await write_history(service, author)
    async with web_socket(origin, author.token) as ws:
        await follow(ws, ticketId=ticket_id)

        await retain()

        await author.create_activity(ticket_id, message="newer")
        change = (await receive(ws))["payload"]["data"]["ticketActivityChanges"]["change"]
    assert change["ticketActivity"]["message"] == "newer"


async def test_deleted_and_redacted_entries_go_too(service: Service) -> None:
    moderator = await service.client(*Scope)
    ticket_id = await moderator.create_ticket()
    deleted = await moderator.create_activity(ticket_id, message="deleted")
    await moderator.mutate(DELETE, ticketId=ticket_id, activityId=deleted["id"])
    entry = await moderator.create_activity(ticket_id, message="secret")
    ids = {"ticketId": ticket_id, "activityId": entry["id"]}
    await moderator.mutate(REDACT, **ids, reason="It was a secret.")
    make_new(service)
    await moderator.put(ticket_id, entry["id"], {"message": "new"})

    await retain()

    assert [message for *_, message in await service.history(ticket_id)] == ["new"]
    assert await count(service, rows.ACTIVITY) == 1
    found = await moderator.graphql(REVISIONS, **ids)
    assert found["data"]["ticketActivity"]["redaction"] is None
    assert found["data"]["ticketActivity"]["revisions"]["totalCount"] == 1


async def test_a_merge_stands_when_its_entries_are_gone(service: Service) -> None:
    moderator = await service.client(*Scope)
    source, target = [await moderator.create_ticket(message="old") for _ in range(2)]
    await moderator.mutate(MERGE, sourceId=source, targetId=target)
    entry = await moderator.create_activity(source, message="draft", allowMerged=True)
    make_new(service)
    await moderator.put(source, f"{entry['id']}?allowMerged=true", {"message": "new"})
    assert (await messages(moderator, target))[0] == 5

    await retain()

    assert await messages(moderator, target) == (1, ["new"])
    document = await moderator.graphql(TIMELINE, id=source)
    assert document["data"]["ticket"]["mergedInto"] == {"id": target}
    assert document["data"]["ticket"]["createdAt"] == "2020-01-01T00:00:00.000Z"


async def test_the_id_of_a_removed_entry_stays_in_use(service: Service, author: Client) -> None:
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message="old")
    make_new(service)
    await retain()

    again = {"ticketId": ticket_id, "activityType": "COMMENT", "message": "old", "id": entry["id"]}
    payload = await author.mutate(CREATE_ACTIVITY, **again)

    assert [error["code"] for error in payload["userErrors"]] == ["ID_TAKEN"]
    assert await author.find(ticket_id, entry["id"]) is None


async def test_a_repeat_under_its_key_has_no_effect_though_the_entry_is_gone(
    service: Service,
) -> None:
    importer = await service.client(*Scope)
    make_new(service)
    ticket_id = await importer.create_ticket()
    input_ = {"ticketId": ticket_id, "activityType": "COMMENT", "createdAt": "2020-01-01T00:00:00Z"}

    async def send() -> JSON:
        body = {"query": CREATE_ACTIVITY, "variables": {"input": input_}}
        options = {"json": body, "headers": {"Idempotency-Key": "one"}}
        document: JSON = (await importer.request("POST", "/graphql", **options)).json()
        payload: JSON = document["data"]["createTicketActivity"]
        return payload

    first = await send()
    await retain()
    again = await send()

    assert first["userErrors"] == []
    assert [error["code"] for error in again["userErrors"]] == ["NOT_FOUND"]
    assert (await messages(importer, ticket_id))[0] == 1


async def test_a_private_entry_that_is_removed_shows_in_no_cursor_of_others(
    service: Service, author: Client
) -> None:
    """As if it had never been: on one ticket there was one, on the other there was not."""
    stranger = await service.client()
    tickets = [await author.create_ticket() for _ in range(2)]
    cursors = [await cursor_of(stranger, ticket_id) for ticket_id in tickets]
    service.clock.advance(days=1)
    await author.create_activity(tickets[0], message="hush", isPrivate=True)
    later = [await cursor_of(stranger, ticket_id) for ticket_id in tickets]
    make_new(service)
    for ticket_id in tickets:
        await author.create_activity(ticket_id, message="new")

    async def answers() -> list[JSON]:
        return [
            await stranger.graphql(FEED, ticketId=ticket_id, after=cursor)
            for found in (cursors, later)
            for ticket_id, cursor in zip(tickets, found, strict=True)
        ]

    for age in ((utc_now() - OLD).days, 730):  # the private entry stays, then goes
        assert await run("retain", "--older-than", f"{age}d", "--apply") == 0
        codes = [
            [error["extensions"]["code"] for error in answer.get("errors", ())]
            for answer in await answers()
        ]
        assert codes[0] == codes[1]
        assert codes[2] == codes[3]
        assert codes[0] == ["CURSOR_EXPIRED"]
    assert codes[2] == ["CURSOR_EXPIRED"]


async def test_a_private_entry_that_was_imported_and_is_removed_shows_to_no_other(
    service: Service, author: Client
) -> None:
    """It was written after their cursors and is older than they are."""
    importer, stranger = await service.client(*Scope), await service.client()
    make_new(service)
    ticket_id = await author.create_ticket(message="opened")
    cursor = await cursor_of(stranger, ticket_id)
    stream = await service.app.state.timeline.follow_changes(
        replace(viewer_of(stranger), scopes=frozenset([Scope.READ])),
        UUID(ticket_id),
        after=cursor,
        wanted=EVERYTHING,
        tell=itself,
    )
    await anext(stream)  # it has begun
    times = {"createdAt": "2020-01-01T00:00:00Z"}
    await importer.create_activity(ticket_id, message="hush", isPrivate=True, **times)
    await author.create_activity(ticket_id, message="new")

    async def told(after: str | None) -> list[str]:
        nodes = (await feed(stranger, ticket_id, after))["nodes"]
        return [node["ticketActivity"]["message"] for node in nodes]

    before = [await told(None), await told(cursor)]

    await retain()

    assert [await told(None), await told(cursor)] == before == [["opened", "new"], ["new"]]
    assert (await anext(stream)).recorded.activity.message == "new"
    await author.create_activity(ticket_id, message="newer")
    assert (await anext(stream)).recorded.activity.message == "newer"
    await stream.aclose()
    [error] = (await by_query("", importer, ticket_id, cursor))["errors"]
    assert error["extensions"]["code"] == "CURSOR_EXPIRED", "who sees it may have missed it"


def lines_of(file: str) -> list[str]:
    """The lines of an export after the header, which has its time."""
    return Path(file).read_text().splitlines()[1:]


async def test_what_is_left_is_exported_and_imported(
    service: Service,
    author: Client,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticket_id, entry = await write_history(service, author)
    await retain()
    file, again = str(tmp_path / "1.jsonl"), str(tmp_path / "2.jsonl")
    assert await run("export", file, "--tokens") == 0
    target = engine.new_database()
    monkeypatch.setenv("TICKET_ACTIVITY_DATABASE_URL", target)

    assert await run("import", file) == 0

    assert await run("export", again, "--tokens") == 0
    assert lines_of(file) == lines_of(again)
    async with start(service.settings.model_copy(update={"database_url": target})) as other:
        elsewhere = Client(other.http, author.actor_id, author.token)
        assert await messages(elsewhere, ticket_id) == (2, ["fifth", "new"])
        assert (await revisions(elsewhere, entry))["totalCount"] == 2
        page = await feed(elsewhere, ticket_id)
        assert [seq_of(other, ticket_id, node["cursor"]) for node in page["nodes"]] == [6, 7, 8]
    engine.drop(target)


async def test_a_hidden_entry_with_a_past_that_is_gone_does_not_exist_for_others(
    service: Service, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message="public")
    make_new(service)
    await author.put(ticket_id, entry["id"], {"message": "hush", "isPrivate": True})
    await retain()

    for name in BLIND:
        client = await viewer(service, author, name)
        for path, ask in PATHS.items():
            hidden = await ask(client, ticket_id, entry["id"])
            missing = await ask(client, ticket_id, MISSING)
            assert answered(hidden, entry["id"]) == answered(missing, MISSING), (name, path)


@pytest.mark.parametrize("age", ["730", "never", "0d", "-1d", "two years"])
@pytest.mark.any_engine
async def test_an_age_that_is_none_is_refused(
    service: Service, age: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        await run("retain", f"--older-than={age}", "--apply")

    assert "give a number and d, h or m, such as 730d" in capsys.readouterr().err
