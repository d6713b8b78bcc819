"""Tokens that compete get their turns by what they have used; a token that is alone never waits."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app import turns as turns_module
from app.errors import Busy
from app.settings import Settings
from app.turns import Turns
from tests.support.live import event_stream, feed, listening
from tests.support.service import Client, start

HEAVY, LIGHT = "heavy", "light"


async def use(seconds: float) -> None:
    """Keep the processor busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@asynccontextmanager
async def in_work(turns: Turns, token: str) -> AsyncIterator[None]:
    """Keep one request of a token in work."""
    begun, end = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await end.wait()

    running = asyncio.create_task(turns.run(token, work()))
    await begun.wait()
    try:
        yield
    finally:
        end.set()
        await running


def present(turns: Turns) -> int:
    """Return how many tokens are present a good while later."""
    later = time.monotonic() + 1
    turns.clock = lambda: later
    turns._forget_lingering()
    return turns._present


async def settled() -> None:
    """Let everything run that can run now."""
    for _ in range(5):
        await asyncio.sleep(0)


async def record(events: list[str], event: str) -> None:
    events.append(event)


async def test_a_token_that_is_alone_never_waits() -> None:
    turns = Turns(1)
    async with in_work(turns, HEAVY), in_work(turns, HEAVY):
        await turns.run(HEAVY, use(0.05))
        async with in_work(turns, HEAVY):
            pass  # it began


async def test_of_two_that_compete_the_one_that_used_more_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "FORCED_SECONDS", 1000)
    turns = Turns(1000)
    events: list[str] = []
    await turns.run(HEAVY, use(0.2))
    async with in_work(turns, LIGHT):
        waiting = asyncio.create_task(turns.run(HEAVY, record(events, "heavy")))
        await settled()
        await turns.run(LIGHT, record(events, "light"))
        assert events == ["light"]
    await waiting
    assert events == ["light", "heavy"]


async def test_a_token_stays_present_until_its_client_can_have_sent_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "FORCED_SECONDS", 1000)
    monkeypatch.setattr(turns_module, "PRESENCE_SECONDS", 0.1)
    turns = Turns(1000)
    turns.charge(HEAVY, 30)
    began = time.monotonic()
    await turns.run(LIGHT, use(0))
    await turns.run(HEAVY, use(0))
    assert time.monotonic() - began >= 0.1


async def test_short_requests_of_a_token_over_its_share_go_on_beside_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "FORCED_SECONDS", 1000)
    turns = Turns(1000)
    turns.charge(HEAVY, 30)
    for _ in range(100):  # alone, it shows that its requests are short
        await turns.run(HEAVY, use(0))
    async with in_work(turns, LIGHT), asyncio.timeout(10):
        for _ in range(10):
            await turns.run(HEAVY, use(0))
        await turns.run(HEAVY, use(0.02))  # the next ones may take as long: they wait
        waiting = asyncio.create_task(turns.run(HEAVY, use(0)))
        await settled()
        assert not waiting.done()
    await waiting


async def test_a_turn_beyond_the_share_that_took_long_is_followed_by_a_longer_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "FORCED_SECONDS", 0.01)
    monkeypatch.setattr(turns_module, "HALF_LIFE_SECONDS", 1000)
    turns = Turns(1000)
    turns.charge(HEAVY, 30)
    async with in_work(turns, LIGHT):
        began = time.monotonic()
        for _ in range(3):
            await turns.run(HEAVY, use(0))
        quick = time.monotonic() - began
        await turns.run(HEAVY, use(0.05))  # charged four times: everybody else had to wait
        began = time.monotonic()
        await turns.run(HEAVY, use(0))
        assert time.monotonic() - began >= 0.1
    assert quick >= 0.01


async def test_those_that_waited_are_in_work_together_once_their_token_is_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "FORCED_SECONDS", 1000)
    turns = Turns(1000)
    turns.charge(HEAVY, 0.5)
    together = asyncio.Barrier(3)
    async with in_work(turns, LIGHT):
        waiting = [asyncio.create_task(turns.run(HEAVY, together.wait())) for _ in range(3)]
        await settled()
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)


async def test_a_token_over_its_share_still_gets_a_turn_now_and_then() -> None:
    turns = Turns(1000)
    await turns.run(HEAVY, use(0.2))
    async with in_work(turns, LIGHT):
        await turns.run(HEAVY, use(0))


async def test_a_slow_request_does_not_keep_others_of_its_token_from_their_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(turns_module, "HALF_LIFE_SECONDS", 1000)
    turns = Turns(1000)
    async with in_work(turns, LIGHT), in_work(turns, HEAVY):
        turns.charge(HEAVY, 30)
        async with asyncio.timeout(5):
            await turns.run(HEAVY, use(0))


async def test_time_on_other_threads_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "FORCED_SECONDS", 1000)
    turns = Turns(1000)
    events: list[str] = []
    turns.charge(HEAVY, 0.5)
    async with in_work(turns, LIGHT):
        waiting = asyncio.create_task(turns.run(HEAVY, record(events, "heavy")))
        await settled()
        assert events == []
    await waiting


async def test_what_was_used_long_ago_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "FORCED_SECONDS", 1000)
    monkeypatch.setattr(turns_module, "HALF_LIFE_SECONDS", 0.001)
    turns = Turns(1000)
    turns.charge(HEAVY, 0.5)
    async with in_work(turns, LIGHT):
        await asyncio.sleep(0.05)  # fifty half-lives
        await turns.run(HEAVY, use(0))


async def test_an_account_is_kept_while_its_requests_are_in_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "HALF_LIFE_SECONDS", 1e-9)  # something is dropped each time
    turns = Turns(1000)
    async with in_work(turns, LIGHT), in_work(turns, HEAVY):
        assert {*turns._accounts} == {LIGHT, HEAVY}


async def test_only_so_many_accounts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "_MAX_ACCOUNTS", 2)
    turns = Turns(1000)
    async with in_work(turns, LIGHT):
        for number in range(10):
            turns.charge(f"{number}", 1)
        assert LIGHT in turns._accounts
        assert len(turns._accounts) <= 3
        assert turns._total == pytest.approx(len(turns._accounts) - 1, abs=0.01)


async def test_nothing_goes_on_when_nobody_waits_any_longer() -> None:
    turns = Turns(1000)
    turns.charge(HEAVY, 0.5)
    async with in_work(turns, LIGHT):
        waiting = asyncio.create_task(turns.run(HEAVY, use(0)))
        await settled()
        assert turns._timer
    await waiting
    assert not turns._waiting
    if turns._timer:
        turns._timer.cancel()
        turns._on_time()
    assert not turns._timer


async def test_who_waits_too_long_is_busy_and_leaves_nothing_behind() -> None:
    turns = Turns(0.001)
    turns.charge(HEAVY, 0.5)
    async with in_work(turns, LIGHT), in_work(turns, LIGHT):
        with pytest.raises(Busy):
            await turns.run(HEAVY, use(0))
    assert not present(turns)


async def test_only_so_many_requests_of_one_token_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "MAX_WAITING", 3)
    monkeypatch.setattr(turns_module, "FORCED_SECONDS", 1000)
    turns = Turns(1000)
    turns.charge(HEAVY, 0.5)
    async with in_work(turns, LIGHT):
        waiting = [asyncio.create_task(turns.run(HEAVY, use(0))) for _ in range(3)]
        await settled()
        with pytest.raises(Busy):
            await turns.run(HEAVY, use(0))
    await asyncio.gather(*waiting)


async def test_the_error_of_the_work_is_the_error_of_the_turn() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("its own")

    turns = Turns(1)
    with pytest.raises(ValueError, match="its own"):
        await turns.run(LIGHT, fail())
    assert not present(turns)


async def test_a_cancelled_request_cancels_its_work() -> None:
    turns = Turns(1)
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    running = asyncio.create_task(turns.run(LIGHT, work()))
    await settled()
    running.cancel()
    await asyncio.wait([running])
    assert cancelled.is_set()
    assert not present(turns)


async def test_requests_that_gave_up_leave_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "MAX_WAITING", 2)
    monkeypatch.setattr(turns_module, "FORCED_SECONDS", 1000)
    turns = Turns(1000)
    turns.charge(HEAVY, 30)
    async with in_work(turns, LIGHT):
        gone = [asyncio.create_task(turns.run(HEAVY, use(0))) for _ in range(2)]
        await settled()
        for task in gone:
            task.cancel()
        await settled()
        assert not turns._waiting
        waiting = asyncio.create_task(turns.run(HEAVY, use(0)))
        await settled()
        assert not waiting.done(), "it waits, and was not refused"
    await waiting


async def test_a_busy_token_does_not_keep_another_from_the_door(settings: Settings) -> None:
    """Through HTTP: while one token has used much, the requests of another begin before its own."""
    async with start(settings) as service:
        heavy, light = await service.client(), await service.client()
        ticket_id = await light.create_ticket()
        query = "query T($id: ID!) { ticket(id: $id) { id } }"
        service.app.state.turns.charge(heavy.token.split("_")[1], 30)
        order: list[str] = []

        async def ask(client: Client, name: str) -> None:
            document = await client.graphql(query, id=ticket_id)
            assert document["data"]["ticket"]["id"] == ticket_id
            order.append(name)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(ask(light, "light"))
                tasks.create_task(ask(heavy, "heavy"))
        assert order.index("heavy") > 5
        assert order.count("heavy") == 10


async def test_what_other_threads_and_sending_take_is_charged_to_the_token(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged: Counter[str] = Counter()
    charge = Turns.charge

    def charge_and_note(turns: Turns, token_id: str, seconds: float) -> None:
        charged[token_id] += 1
        charge(turns, token_id, seconds)

    monkeypatch.setattr(Turns, "charge", charge_and_note)
    async with start(settings) as service, listening(service) as origin:
        client = await service.client()
        token_id = client.token.split("_")[1]
        ticket_id = await client.create_ticket(message="x" * 60_000)
        query = "query T($id: ID!) { ticket(id: $id) { activities(first: 1) { nodes { %s } } } }"
        entry = (await client.create_activity(ticket_id, message="x" * 60_000))["id"]

        await client.graphql(query % "id", id=ticket_id)  # the next ones find it in the cache
        charged.clear()
        await client.graphql(query % "id", id=ticket_id)
        of_a_short_query = charged[token_id]  # its load

        charged.clear()
        await client.graphql(query % "id " + " " * 1000, id=ticket_id)
        assert charged[token_id] == of_a_short_query + 1, "a long document is parsed in a thread"

        charged.clear()
        await client.graphql(query % "a: message b: message", id=ticket_id)
        assert charged[token_id] == of_a_short_query + 1, "sending a large response"

        await client.put(ticket_id, entry, {"message": "changed"})
        after = (await feed(client, ticket_id, first=1))["pageInfo"]["endCursor"]
        charged.clear()
        variables = {"ticketId": ticket_id, "after": after}
        async with event_stream(origin, client.token, variables) as events:
            await anext(events)
            await anext(events)
        assert charged[token_id] > 0, "reading changes for one subscriber"
