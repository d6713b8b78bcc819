"""The edges of the single writer: batches, failing jobs, callers that leave, closing."""

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, event
from sqlmodel import select

from app.activity.commands import Command, CreateTicket, UpdateActivity
from app.activity.outcomes import Outcome
from app.activity.values import generate_uuid7
from app.auth import Scope, Viewer
from app.errors import Busy, NotFound
from app.main import create_timeline, running
from app.models import TicketActivity
from app.settings import Settings
from app.store.database import open_database
from app.timeline import Timeline
from tests.support.engines import REFUSED_VALUE
from tests.support.service import Clock, Service, start

ADA = Viewer(UUID(int=1), "Ada", frozenset(Scope), "test")


def a_ticket() -> CreateTicket:
    return CreateTicket(generate_uuid7(Clock().now), "opened", {})


def an_update(ticket: CreateTicket, message: str) -> UpdateActivity:
    return UpdateActivity(ticket.ticket_id, ticket.entry.activity_id, message=message)


@pytest.fixture
def commits() -> Iterator[list[str]]:
    """One item for each COMMIT, of any connection."""
    seen: list[str] = []

    def note(_connection: object) -> None:
        seen.append("COMMIT")

    event.listen(Engine, "commit", note)
    yield seen
    event.remove(Engine, "commit", note)


async def submit_all(timeline: Timeline, commands: list[Command]) -> list[Outcome | BaseException]:
    return await asyncio.gather(
        *(timeline.submit(ADA, command) for command in commands), return_exceptions=True
    )


async def messages_on_disk(settings: Settings) -> set[str | None]:
    """What another process reads."""
    database = open_database(settings.database_url)
    messages = await database.read(
        lambda session: session.exec(select(TicketActivity.message)).all()
    )
    await database.close()
    return set(messages)


async def test_commands_that_wait_share_one_commit(settings: Settings, commits: list[str]) -> None:
    timeline = create_timeline(settings, Clock())
    async with running(timeline):
        tickets = [a_ticket() for _ in range(100)]

        outcomes = await submit_all(timeline, list(tickets))

        assert len(commits) == 1
        assert [outcome.activity.ticket_id for outcome in outcomes if isinstance(outcome, Outcome)]
        assert all(isinstance(outcome, Outcome) for outcome in outcomes)


async def test_a_batch_is_bounded(settings: Settings, commits: list[str]) -> None:
    timeline = create_timeline(settings.model_copy(update={"write_batch_size": 10}), Clock())
    async with running(timeline):
        await submit_all(timeline, [a_ticket() for _ in range(35)])

        assert len(commits) == 4


async def test_commands_of_one_batch_see_those_before_them(
    settings: Settings, commits: list[str]
) -> None:
    timeline = create_timeline(settings, Clock())
    ticket = a_ticket()
    async with running(timeline):
        outcomes = await submit_all(
            timeline, [ticket, *(an_update(ticket, f"message {i}") for i in range(5))]
        )

        assert len(commits) == 1
        assert [
            (outcome.activity.version, outcome.ticket.last_seq)
            for outcome in outcomes
            if isinstance(outcome, Outcome)
        ] == [(n, n) for n in range(1, 7)]


async def test_a_failing_command_fails_alone(settings: Settings) -> None:
    timeline = create_timeline(settings, Clock())
    first, missing, last = a_ticket(), a_ticket(), a_ticket()
    async with running(timeline):
        outcomes = await submit_all(
            timeline, [first, an_update(missing, "x"), last, an_update(first, "kept")]
        )

    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Outcome, NotFound, Outcome, Outcome]
    assert await messages_on_disk(settings) == {"kept", "opened"}


async def test_a_command_that_the_engine_refuses_fails_alone(settings: Settings) -> None:
    timeline = create_timeline(settings, Clock())
    good, bad = a_ticket(), a_ticket()
    # No door lets this text through; here it stands for whatever one engine alone refuses.
    poison = CreateTicket(bad.ticket_id, "half a pair: \ud800", {})
    async with running(timeline):
        jobs = [timeline.writer.submit(ADA, command) for command in (poison, good)]
        refused, outcome = await asyncio.gather(*jobs, return_exceptions=True)

    assert isinstance(refused, REFUSED_VALUE)
    assert isinstance(outcome, Outcome)
    assert await messages_on_disk(settings) == {"opened"}


async def test_a_caller_that_leaves_takes_its_waiting_command_back(settings: Settings) -> None:
    timeline = create_timeline(settings, Clock())
    stays, leaves = a_ticket(), a_ticket()
    async with running(timeline):
        waiting = asyncio.ensure_future(timeline.submit(ADA, leaves))
        kept = asyncio.ensure_future(timeline.submit(ADA, stays))
        await asyncio.sleep(0)  # both are in the queue; the writer has not run yet
        waiting.cancel()

        outcome = await kept

        assert outcome.ticket.id == stays.ticket_id
        ids = [stays.ticket_id, leaves.ticket_id]
        [found, other] = await timeline.read(ADA, lambda view: view.load_tickets(ids))
        assert found is not None
        assert other is None


async def test_a_caller_that_leaves_during_the_unit_of_work_harms_nobody(
    settings: Settings,
) -> None:
    timeline = create_timeline(settings, Clock())
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def note(_connection: object) -> None:
        loop.call_soon_threadsafe(begun.set)

    event.listen(Engine, "begin", note)
    async with running(timeline):
        leaves = asyncio.ensure_future(timeline.submit(ADA, a_ticket()))
        stays = asyncio.ensure_future(timeline.submit(ADA, a_ticket()))
        await begun.wait()
        leaves.cancel()

        assert (await stays).ticket.last_seq == 1
        assert (await timeline.submit(ADA, a_ticket())).ticket.last_seq == 1
    event.remove(Engine, "begin", note)


async def test_a_full_queue_is_busy(settings: Settings) -> None:
    timeline = create_timeline(settings.model_copy(update={"write_queue_size": 3}), Clock())
    async with running(timeline):
        outcomes = await submit_all(timeline, [a_ticket() for _ in range(5)])

        assert [type(outcome) for outcome in outcomes] == [Outcome] * 3 + [Busy] * 2
        assert isinstance(await timeline.submit(ADA, a_ticket()), Outcome)


async def test_a_command_that_waits_for_too_long_is_busy_and_not_carried_out(
    settings: Settings,
) -> None:
    changed = settings.model_copy(update={"write_wait_seconds": 0.1})
    async with start(changed) as service:
        timeline: Timeline = service.app.state.timeline
        first, late = a_ticket(), a_ticket()
        async with service.write_lock():
            writing = asyncio.ensure_future(timeline.submit(ADA, first))
            await asyncio.sleep(0)  # it is in the queue
            while timeline.writer.waiting:  # until a unit of work has it  # noqa: ASYNC110
                await asyncio.sleep(0)
            with pytest.raises(Busy, match="writes before this one take too long"):
                await timeline.submit(ADA, late)
        await writing
        update = await submit_all(timeline, [an_update(late, "x"), an_update(first, "kept")])

    assert [type(outcome) for outcome in update] == [NotFound, Outcome]


async def test_a_full_queue_is_503_on_both_doors(settings: Settings) -> None:
    async with start(settings.model_copy(update={"write_queue_size": 1})) as service:
        author = await service.client()
        ticket_id = await author.create_ticket()
        entry = await author.create_activity(ticket_id)
        responses = await asyncio.gather(
            *(author.put(ticket_id, entry["id"], {"message": str(i)}) for i in range(20))
        )

    busy = [response for response in responses if response.status_code == 503]
    assert busy
    assert {response.status_code for response in responses} == {200, 503}
    assert {response.json()["code"] for response in busy} == {"BUSY"}
    assert {response.headers["Retry-After"] for response in busy} == {"1"}


async def test_closing_finishes_what_waits_and_refuses_what_comes(settings: Settings) -> None:
    timeline = create_timeline(settings.model_copy(update={"write_batch_size": 2}), Clock())
    async with running(timeline):
        queued = [asyncio.ensure_future(timeline.submit(ADA, a_ticket())) for _ in range(9)]
        await asyncio.sleep(0)
        timeline.writer.close()
        timeline.writer.close()

        with pytest.raises(Busy, match="shutting down"):
            await timeline.submit(ADA, a_ticket())
        outcomes = await asyncio.gather(*queued)

    assert len(outcomes) == 9
    with pytest.raises(Busy, match="shutting down"):
        await timeline.submit(ADA, a_ticket())


async def test_another_process_that_writes_is_waited_for_or_busy(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    entry = await author.create_activity(ticket_id, message="before")
    async with service.write_lock():
        waiting = asyncio.ensure_future(author.put(ticket_id, entry["id"], {"message": "after"}))
        refused = await waiting  # the other keeps the lock for longer than anybody waits

    assert (refused.status_code, refused.json()["code"]) == (503, "BUSY")
    response = await author.put(ticket_id, entry["id"], {"message": "after"})
    assert response.status_code == 200
