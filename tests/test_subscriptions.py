"""Subscriptions over both kinds of streams: what comes, in which order, and how they end."""

import asyncio
import gc
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from websockets.asyncio.client import connect

from app.auth import Scope
from app.settings import Settings
from tests.support.cursors import seq_of
from tests.support.live import (
    FOLLOW,
    STATE,
    closing,
    event_stream,
    feed,
    follow,
    listening,
    over_event_stream,
    over_web_socket,
    receive,
    results_of,
    send,
    stand,
    subscribe,
    web_socket,
)
from tests.support.service import JSON, UPDATE, Client, Service, start

ABSENT = "0190a3f0-5c1e-7b2a-9d3e-4f5a6b7c8d9e"
STREAMS = pytest.mark.parametrize("over", [over_web_socket, over_event_stream], ids=["ws", "sse"])


@pytest.fixture
async def entry(author: Client) -> JSON:
    return await author.create_activity(await author.create_ticket(), message="0")


async def write(author: Client, entry: JSON, message: str, **more: Any) -> None:
    body = {"message": message} | more
    assert (await author.put(entry["ticketId"], entry["id"], body)).status_code == 200


# What comes


@STREAMS
async def test_what_was_missed_comes_first_then_what_happens(
    origin: str, author: Client, entry: JSON, over: Any
) -> None:
    ticket_id = entry["ticketId"]
    start_ = (await feed(author, ticket_id, first=1))["pageInfo"]["endCursor"]
    await write(author, entry, "1")

    async with over(origin, author.token, ticket_id, start_) as changes:
        missed = [await anext(changes) for _ in range(2)]
        await write(author, entry, "2")
        live = await anext(changes)

    assert [change["ticketActivity"]["message"] for change in [*missed, live]] == ["0", "1", "2"]
    assert [change["changeType"] for change in [*missed, live]] == ["ADDED", "UPDATED", "UPDATED"]
    assert live["ticketActivity"]["ticket"] == {"id": ticket_id}


@STREAMS
async def test_a_query_and_a_stream_from_its_cursor_leave_nothing_out(
    service: Service, origin: str, author: Client, entry: JSON, over: Any
) -> None:
    state = (await author.graphql(STATE, id=entry["ticketId"]))["data"]["ticket"]
    await write(author, entry, "1")
    cursor = state["changesCursor"]

    async with over(origin, author.token, entry["ticketId"], cursor) as changes:
        change = await anext(changes)

    assert change["ticketActivity"]["message"] == "1"
    before, after = (
        seq_of(service, entry["ticketId"], place) for place in (cursor, change["cursor"])
    )
    assert after == before + 1


async def test_without_a_cursor_it_begins_now(
    service: Service, origin: str, author: Client, entry: JSON
) -> None:
    async with web_socket(origin, author.token) as ws:
        cursor = await follow(ws, ticketId=entry["ticketId"])
        await write(author, entry, "1")

        message = await receive(ws)

    state = (await author.graphql(STATE, id=entry["ticketId"]))["data"]["ticket"]
    payload = message["payload"]["data"]["ticketActivityChanges"]
    assert payload["change"]["ticketActivity"]["message"] == "1"
    before, begun, now = (
        seq_of(service, entry["ticketId"], place)
        for place in (cursor, payload["cursor"], state["changesCursor"])
    )
    assert before + 1 == begun == now


@STREAMS
@pytest.mark.parametrize(
    ("flips", "expected"),
    [
        ([True, False, True], [("REMOVED", None), ("ADDED", "change 1"), ("REMOVED", None)]),
        ([False, True, True], [("UPDATED", "change 0"), ("REMOVED", None)]),
    ],
)
async def test_a_stream_shows_what_its_viewer_sees(
    service: Service,
    origin: str,
    author: Client,
    entry: JSON,
    over: Any,
    flips: list[bool],
    expected: list[Any],
) -> None:
    other = await service.client(Scope.READ)
    ticket_id = entry["ticketId"]
    cursor = (await feed(other, ticket_id))["pageInfo"]["endCursor"]
    seen: list[tuple[str, str | None]] = []

    async with over(origin, other.token, ticket_id, cursor) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        for number, flip in enumerate(flips):
            await write(author, entry, f"change {number}", isPrivate=flip)
            if len(seen) < len(expected):
                change = await waiting
                seen.append((change["changeType"], (change["ticketActivity"] or {}).get("message")))
                waiting = asyncio.ensure_future(anext(changes))
        last = await author.create_activity(ticket_id, message="the end")
        assert (await waiting)["activityId"] == last["id"]

    assert seen == expected


async def test_nothing_is_sent_of_what_was_never_seen(
    service: Service, origin: str, author: Client, entry: JSON
) -> None:
    other = await service.client(Scope.READ)
    ticket_id = entry["ticketId"]
    cursor = (await feed(other, ticket_id))["pageInfo"]["endCursor"]
    hidden = await author.create_activity(ticket_id, message="hidden", isPrivate=True)
    await write(author, hidden, "still hidden")
    public = await author.create_activity(ticket_id, message="public")

    async with over_web_socket(origin, other.token, ticket_id, cursor) as changes:
        assert (await anext(changes))["activityId"] == public["id"]


async def test_many_follow_one_ticket(service: Service, origin: str, author: Client) -> None:
    entry = await author.create_activity(await author.create_ticket(), message="0")
    async with web_socket(origin, author.token) as ws:
        for number in range(50):
            await follow(ws, str(number), ticketId=entry["ticketId"])
        await write(author, entry, "1")

        received = [await receive(ws) for _ in range(50)]

    assert {message["id"] for message in received} == {str(number) for number in range(50)}


async def test_null_is_not_the_default_that_another_subscriber_left_to_a_variable(
    origin: str, author: Client
) -> None:
    query = """
    subscription Edges($ticketId: ID!, $order: TicketActivityOrder = {field: UPDATED_AT}) {
      ticketActivityChanges(ticketId: $ticketId) {
        cursor change { ticketActivityEdge(orderBy: $order) { cursor } }
      }
    }
    """
    ticket_id = await author.create_ticket()
    written = {"order": {"field": "UPDATED_AT"}}
    given: dict[str, JSON] = {"left out": {}, "null": {"order": None}, "written": written}
    async with web_socket(origin, author.token) as ws:
        for id_, more in given.items():
            await follow(ws, id_, query, ticketId=ticket_id, **more)
        await author.create_activity(ticket_id)
        received = [await receive(ws) for _ in given]

    edges = {
        message["id"]: message["payload"]["data"]["ticketActivityChanges"]["change"]
        for message in received
    }
    assert edges["left out"] == edges["written"] != edges["null"]


async def test_events_of_a_document_that_comes_once_are_compiled(settings: Settings) -> None:
    """A request that comes once is not; each event of a subscription comes again."""
    usual = settings.model_copy(update={"interpreted_first": 1})
    async with start(usual) as service, listening(service) as origin:
        author = await service.client()
        entry = await author.create_activity(await author.create_ticket(), message="0")

        def executions(engine: str) -> float:
            [count] = service.app.state.measure()["ticket_activity_executions", (engine,)]
            return float(count)

        async with web_socket(origin, author.token) as ws:
            before = executions("compiled")
            await follow(ws, ticketId=entry["ticketId"])
            assert executions("compiled") == before
            for number in range(1, 4):
                await write(author, entry, str(number))
                await receive(ws)
        assert executions("compiled") == before + 1  # from the second event on


async def test_changes_of_many_tickets_at_once_reach_their_subscribers(
    origin: str, author: Client
) -> None:
    entries = [await author.create_activity(await author.create_ticket()) for _ in range(40)]
    async with web_socket(origin, author.token) as ws:
        for number, entry in enumerate(entries):
            await follow(ws, str(number), ticketId=entry["ticketId"])

        await asyncio.gather(*(write(author, entry, "new") for entry in entries))

        messages = [await receive(ws) for _ in entries]
    told = {
        message["id"]: message["payload"]["data"]["ticketActivityChanges"]["change"]["activityId"]
        for message in messages
    }
    assert told == {str(number): entry["id"] for number, entry in enumerate(entries)}


async def test_a_slow_subscriber_reads_on_from_the_database(
    service: Service, origin: str, author: Client, entry: JSON
) -> None:
    ticket_id = entry["ticketId"]
    cursor = (await feed(author, ticket_id))["pageInfo"]["endCursor"]

    async with over_web_socket(origin, author.token, ticket_id, cursor) as changes:
        await write(author, entry, "first")
        assert (await anext(changes))["ticketActivity"]["message"] == "first"
        # More than a process keeps in memory, while this client reads nothing.
        await asyncio.gather(
            *(author.create_activity(ticket_id, message="x" * 2000) for _ in range(600))
        )
        cursors = [(await anext(changes))["cursor"] for _ in range(600)]

    numbers = [seq_of(service, ticket_id, cursor) for cursor in cursors]
    assert numbers == list(range(4, 604))


async def test_a_query_and_a_mutation_run_over_a_web_socket_too(
    origin: str, author: Client, entry: JSON
) -> None:
    input_ = {"ticketId": entry["ticketId"], "activityId": entry["id"], "message": "1"}
    async with web_socket(origin, author.token) as ws:
        await subscribe(ws, "a", "{ viewer { name } }")
        assert (await receive(ws))["payload"] == {"data": {"viewer": {"name": "test"}}}
        assert await receive(ws) == {"id": "a", "type": "complete"}
        await subscribe(ws, "a", UPDATE, input=input_)
        payload = (await receive(ws))["payload"]["data"]["updateTicketActivity"]
        assert payload["ticketActivity"]["message"] == "1"


async def test_a_query_runs_over_an_event_stream_too(origin: str, author: Client) -> None:
    async with event_stream(origin, author.token, {}, "{ viewer { name } }") as events:
        received = [event async for event in events if "event" in event]

    assert [event["event"] for event in received] == ["next", "complete"]
    assert json.loads(received[0]["data"]) == {"data": {"viewer": {"name": "test"}}}


async def test_last_event_id_wins_over_the_argument(
    service: Service, origin: str, author: Client, entry: JSON
) -> None:
    start_ = (await feed(author, entry["ticketId"], first=1))["pageInfo"]["endCursor"]
    await write(author, entry, "1")
    newer = (await feed(author, entry["ticketId"], first=2))["pageInfo"]["endCursor"]
    variables = {"ticketId": entry["ticketId"], "after": start_}

    async with event_stream(origin, author.token, variables, **{"Last-Event-ID": newer}) as events:
        begun = await stand(events)
        assert seq_of(service, entry["ticketId"], begun) == 2
        assert '"message":"1"' in (await anext(results_of(events)))["data"]


# What is refused


@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        (FOLLOW, {"ticketId": "x"}, "INVALID_INPUT"),
        (FOLLOW, {}, "INVALID_INPUT"),
        (FOLLOW, {"ticketId": ABSENT}, "NOT_FOUND"),
        (FOLLOW, {"ticketId": ABSENT, "more": "x" * 16_384}, "INVALID_INPUT"),
        ("subscription { nothing }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("subscription {", {}, "GRAPHQL_PARSE_FAILED"),
    ],
)
async def test_a_subscription_that_cannot_begin_says_why(
    origin: str, author: Client, query: str, variables: JSON, code: str
) -> None:
    async with web_socket(origin, author.token) as ws:
        await subscribe(ws, "1", query, **variables)
        message = await receive(ws)
        assert message["type"] == "error"
        assert message["payload"][0]["extensions"]["code"] == code
    response = await author.request(
        "POST",
        "/graphql",
        json={"query": query, "variables": variables},
        headers={"Accept": "text/event-stream"},
    )
    assert 400 <= response.status_code < 500 or response.status_code == 200
    assert response.json()["errors"][0]["extensions"]["code"] == code


async def test_a_subscription_does_not_hold_what_its_message_had_beside(
    origin: str, author: Client
) -> None:
    variables = {"ticketId": await author.create_ticket()}
    async with web_socket(origin, author.token) as ws:
        payload = {"query": FOLLOW, "variables": variables, "beside": []}
        await send(ws, id="1", type="subscribe", payload=payload)
        del payload
        assert (await receive(ws))["type"] == "next"

        assert not [one for one in gc.get_objects() if type(one) is dict and "beside" in one]


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (["not JSON"], 4400),
        (["[]"], 4400),
        (['{"type": 1}'], 4400),
        (['{"type": "unknown"}'], 4400),
        (['{"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }"}}'], 4401),
        (['{"type": "connection_init"}'], 4401),
        (['{"type": "connection_init", "payload": {"Authorization": "Bearer x"}}'], 4401),
        (["INIT", '{"type": "connection_init"}'], 4429),
        (["INIT", '{"type": "unknown"}'], 4400),
        (["INIT", '{"type": "subscribe", "payload": {"query": "{ __typename }"}}'], 4400),
        (["INIT", '{"type": "subscribe", "id": "1"}'], 4400),
        (["INIT", "SUBSCRIBE", "SUBSCRIBE"], 4409),
    ],
)
async def test_a_breach_of_the_protocol_closes_the_connection(
    origin: str, author: Client, entry: JSON, messages: list[str], code: int
) -> None:
    known = {
        "INIT": {
            "type": "connection_init",
            "payload": {"Authorization": f"Bearer {author.token}"},
        },
        "SUBSCRIBE": {
            "type": "subscribe",
            "id": "1",
            "payload": {"query": FOLLOW, "variables": {"ticketId": entry["ticketId"]}},
        },
    }
    async with web_socket(origin, None) as ws:
        for message in messages:
            await ws.send(json.dumps(known[message]) if message in known else message)

        assert (await closing(ws))[0] == code


async def test_connections_that_come_and_go_write_nothing_into_the_log(
    origin: str, author: Client, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("uvicorn")  # it does not propagate
    log.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):  # of all loggers that have no level of their own
        async with web_socket(origin, author.token):
            pass
        async with web_socket(origin, None) as ws:
            await ws.send("{")
            await closing(ws)
    log.removeHandler(caplog.handler)

    servers = ("uvicorn", "app.server")
    assert [record.name for record in caplog.records if record.name.startswith(servers)] == []


async def test_another_subprotocol_is_not_acceptable(origin: str) -> None:
    address = origin.replace("http", "ws", 1) + "/graphql"
    async with connect(address) as ws:
        assert (await closing(ws))[0] == 4406


async def test_a_binary_message_closes_the_connection(origin: str) -> None:
    async with web_socket(origin, None) as ws:
        await ws.send(b"{}")
        assert (await closing(ws))[0] == 4400


@pytest.fixture
def narrow(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "max_subscriptions_per_connection": 2,
            "max_subscriptions_per_token": 3,
            "connection_init_seconds": 0.2,
            "max_stream_seconds": 1.0,
            "keep_alive_seconds": 0.1,
        }
    )


async def test_a_connection_without_a_token_is_closed_after_a_while(narrow: Settings) -> None:
    async with (
        start(narrow) as service,
        listening(service) as origin,
        web_socket(origin, None) as ws,
    ):
        assert await closing(ws) == (4408, "Connection initialisation timeout")


async def test_subscriptions_are_limited_by_connection_and_by_token(narrow: Settings) -> None:
    lasting = narrow.model_copy(update={"max_stream_seconds": 60})
    async with start(lasting) as service, listening(service) as origin:
        author = await service.client()
        ticket_id = await author.create_ticket()
        async with web_socket(origin, author.token) as one, web_socket(origin, author.token) as two:
            for name in "ab":
                await follow(one, name, ticketId=ticket_id)
            await subscribe(one, "c", ticketId=ticket_id)
            refused = await receive(one)
            assert refused["id"] == "c"
            assert "2 operations, which is the limit" in refused["payload"][0]["message"]
            await follow(two, "d", ticketId=ticket_id)
            await subscribe(two, "e", ticketId=ticket_id)
            refused = await receive(two)
            assert refused["id"] == "e"
            assert refused["payload"][0]["extensions"]["code"] == "TOO_MANY_SUBSCRIPTIONS"
            await send(one, id="a", type="complete")
            await send(one, type="ping")
            assert await receive(one) == {"type": "pong"}  # what it held is released by now
            await follow(two, "f", ticketId=ticket_id)
            await author.create_activity(ticket_id)
            assert {(await receive(two))["id"] for _ in range(2)} == {"d", "f"}


async def test_the_documents_that_the_subscriptions_of_a_token_keep_are_limited(
    origin: str, author: Client
) -> None:
    ticket_id = await author.create_ticket()
    documents = [f"{FOLLOW} # {number} ".ljust(60_000, ".") for number in range(3)]
    async with (
        web_socket(origin, author.token) as one,
        web_socket(origin, author.token) as two,
    ):
        await follow(one, "a", documents[0], ticketId=ticket_id)
        await follow(one, "b", documents[1], ticketId=ticket_id)
        await follow(two, "c", documents[1], ticketId=ticket_id)

        await subscribe(two, "d", documents[2], ticketId=ticket_id)
        [error] = (await receive(two))["payload"]
        assert error["extensions"]["code"] == "TOO_MANY_SUBSCRIPTIONS"
        assert "would have 180000 characters; the limit is 131072" in error["message"]

        await send(one, id="b", type="complete")
        await send(one, type="ping")
        await receive(one)
        await subscribe(two, "e", documents[2], ticketId=ticket_id)
        assert (await receive(two))["type"] == "error", "the other connection has it still"
        await send(two, id="c", type="complete")
        await send(two, type="ping")
        await receive(two)
        await follow(two, "f", documents[2], ticketId=ticket_id)


# How they end


async def test_a_stream_ends_at_its_lifetime_for_the_client_to_come_again(
    narrow: Settings,
) -> None:
    async with start(narrow) as service, listening(service) as origin:
        author = await service.client()
        ticket_id = await author.create_ticket()
        async with web_socket(origin, author.token) as ws:
            await subscribe(ws, ticketId=ticket_id)
            assert (await closing(ws))[0] == 1012
        async with event_stream(origin, author.token, {"ticketId": ticket_id}) as events:
            received = [event["event"] async for event in events if "event" in event]
        assert received == ["next"]  # that it stands, and no `complete`


@pytest.mark.parametrize(
    ("end", "close_code", "events_at_the_end"),
    [("revoked", 4401, ["next", "complete"]), ("expired", 4403, [])],
)
async def test_a_token_that_ends_ends_its_streams_within_five_seconds(
    service: Service,
    origin: str,
    author: Client,
    end: str,
    close_code: int,
    events_at_the_end: list[str],
) -> None:
    """The streams of an expired token end so that clients come again, with a fresh one."""
    client = await service.client(lifetime=timedelta(hours=1))
    ticket_id = await author.create_ticket()

    async with (
        web_socket(origin, client.token) as ws,
        event_stream(origin, client.token, {"ticketId": ticket_id}) as events,
    ):
        await follow(ws, ticketId=ticket_id)
        await stand(events)
        if end == "revoked":
            await service.revoke(client)
            service.clock.advance(seconds=2)  # what the clock of the service shows meanwhile
        else:
            service.clock.advance(hours=1)
        async with asyncio.timeout(5):
            code, reason = await closing(ws)
            received = [event async for event in events if "event" in event]

    assert code == close_code
    assert end in reason
    assert [event["event"] for event in received] == events_at_the_end
    assert all("UNAUTHENTICATED" in event["data"] for event in received[:1])


async def test_at_shutdown_every_stream_ends_for_the_client_to_come_again(
    service: Service,
) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    async with (
        listening(service) as origin,
        web_socket(origin, author.token) as ws,
        event_stream(origin, author.token, {"ticketId": ticket_id}) as events,
    ):
        await follow(ws, ticketId=ticket_id)
        await stand(events)
        service.app.state.end_streams()
        async with asyncio.timeout(5):
            assert (await closing(ws))[0] == 1012
            received = [event async for event in events if "event" in event]
    assert received == []
