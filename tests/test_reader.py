"""The edges of the reader: shared snapshots, long reads, callers that leave, closing."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from uuid import UUID

import pytest
from sqlalchemy import BigInteger, bindparam, text
from sqlmodel import Session

from app.activity.commands import CreateTicket, UpdateActivity
from app.activity.listing import MAX_TEXT_WORDS
from app.activity.values import generate_uuid7
from app.auth import Scope, Viewer, parse_token
from app.errors import Busy, QueryTooComplex
from app.main import create_timeline, running
from app.settings import Settings
from app.store import queries, rows
from app.store.loads import Snapshot
from app.timeline import Timeline
from tests.support.service import CREATE_ACTIVITY, Client, Clock, Service, start

ADA = Viewer(UUID(int=1), "Ada", frozenset(Scope), "test")
TOKEN = "a token"
LONG_STEPS = 2_000_000  # rows that are counted: several times what a shared connection allows


@pytest.fixture
async def timeline(settings: Settings) -> AsyncIterator[Timeline]:
    timeline = create_timeline(settings, Clock())
    async with running(timeline):
        yield timeline


def one(_session: Session) -> int:
    return 1


def count_tickets(session: Session) -> int:
    return int(session.connection().exec_driver_sql("SELECT count(*) FROM ticket").scalar_one())


def count_long(session: Session, size: int = LONG_STEPS) -> int:
    """Count by a statement that takes long."""
    statement = text(
        "WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL "
        "SELECT i + 1 FROM n WHERE i < :size) SELECT count(*) FROM n"
    ).bindparams(bindparam("size", size, BigInteger))
    return int(session.connection().execute(statement).scalar_one())


def endless(session: Session) -> int:
    return count_long(session, 10**12)


async def create_ticket(timeline: Timeline) -> CreateTicket:
    command = CreateTicket(generate_uuid7(Clock().now), "opened", {})
    await timeline.submit(ADA, command)
    return command


async def last_seq(snapshot: Snapshot, ticket: CreateTicket) -> int:
    [found] = await snapshot.load_many(queries.load_tickets, [ticket.ticket_id])
    assert found is not None
    return found.last_seq


async def threads_end(count: int) -> None:
    """Wait until no more threads are left; a connection's ends a moment after its last answer."""
    async with asyncio.timeout(10):
        while threading.active_count() > count:  # noqa: ASYNC110, threads have no event for it
            await asyncio.sleep(0.01)


# Snapshots


async def test_an_operation_never_joins_a_snapshot_opened_before_it_arrived(
    timeline: Timeline,
) -> None:
    ticket = await create_ticket(timeline)
    update = UpdateActivity(ticket.ticket_id, ticket.entry.activity_id, message="later")
    has_read, may_go_on = asyncio.Event(), asyncio.Event()

    async def twice(snapshot: Snapshot) -> tuple[int, int]:
        before = await last_seq(snapshot, ticket)
        has_read.set()
        await may_go_on.wait()
        return before, await last_seq(snapshot, ticket)

    early = asyncio.create_task(timeline.reader.read(TOKEN, twice))
    await has_read.wait()
    await timeline.submit(ADA, update)
    late = await timeline.reader.read(TOKEN, lambda snapshot: last_seq(snapshot, ticket))
    may_go_on.set()

    assert late == 2
    assert len(set(await early)) == 1


async def test_operations_that_wait_share_a_snapshot_and_a_statement(timeline: Timeline) -> None:
    asked: list[Sequence[int]] = []

    def double(_session: Session, keys: Sequence[int]) -> dict[int, int]:
        asked.append(sorted(keys))
        return {key: 2 * key for key in keys if key != 3}

    found = await asyncio.gather(
        *(
            timeline.reader.read(TOKEN, lambda snapshot, key=key: snapshot.load_many(double, [key]))  # type: ignore[misc]
            for key in (1, 2, 3, 1)
        )
    )

    assert asked == [[1, 2, 3]]
    assert found == [[2], [4], [None], [2]]


async def test_a_load_that_fails_is_the_failure_of_its_caller_alone(timeline: Timeline) -> None:
    def check(_session: Session, keys: Sequence[int]) -> dict[int, int]:
        if 2 in keys:
            raise ZeroDivisionError
        return {key: key for key in keys}

    def fail(_session: Session) -> None:
        raise KeyError

    found = await asyncio.gather(
        timeline.reader.read(TOKEN, lambda snapshot: snapshot.load_many(check, [1])),
        timeline.reader.read(TOKEN, lambda snapshot: snapshot.load_many(check, [2])),
        timeline.reader.read(TOKEN, lambda snapshot: snapshot.load_many(check, [3])),
        timeline.reader.load(TOKEN, fail),
        timeline.reader.load(TOKEN, lambda session: session.connection().exec_driver_sql("x")),
        timeline.reader.load(TOKEN, one),
        return_exceptions=True,
    )

    assert [found[0], found[2], found[5]] == [[1], [3], 1]
    assert [type(found[1]), type(found[3])] == [ZeroDivisionError, KeyError]
    assert "syntax error" in str(found[4])


async def test_loads_of_many_keys_do_not_hold_up_those_of_few(timeline: Timeline) -> None:
    sizes: list[int] = []

    def note(_session: Session, keys: Sequence[int]) -> dict[int, int]:
        sizes.append(len(keys))
        return {key: key for key in keys}

    reads = [range(1000), range(300, 600), [7], range(200), [8]]
    await asyncio.gather(
        *(
            timeline.reader.read(TOKEN, lambda snapshot, keys=keys: snapshot.load_many(note, keys))  # type: ignore[misc]
            for keys in reads
        )
    )

    assert sizes == [200, 300, 1000]


# Callers that leave


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("work", [one, count_long])
async def test_a_cancelled_caller_harms_nobody_and_leaves_nothing(
    settings: Settings, steps: int, work: Callable[[Session], int]
) -> None:
    narrow = settings.model_copy(
        update={"read_connections": 1, "long_read_connections": 1, "max_long_reads_per_token": 1}
    )
    timeline = create_timeline(narrow, Clock())
    threads = threading.active_count()
    async with running(timeline):
        is_long = work is count_long

        def read() -> asyncio.Task[int]:
            operating = timeline.reader.read(TOKEN, lambda each: each.load(work, is_long=is_long))
            return asyncio.create_task(operating)

        leaves, stays = read(), read()
        for _ in range(steps):
            await asyncio.sleep(0.002)
        leaves.cancel()

        assert await stays in (1, LONG_STEPS)
        assert await timeline.reader.load(TOKEN, count_long) == LONG_STEPS
        await asyncio.gather(leaves, return_exceptions=True)
    await threads_end(threads)


async def test_a_load_that_outlives_its_operation_holds_no_connection(settings: Settings) -> None:
    narrow = settings.model_copy(update={"long_read_connections": 1, "max_long_reads_per_token": 1})
    timeline = create_timeline(narrow, Clock())
    async with running(timeline):
        own = timeline.reader.own_snapshot(TOKEN)
        assert await own.load(one) == 1
        orphans = [asyncio.create_task(own.load(endless)) for _ in range(2)]
        await asyncio.sleep(0)  # the first of them has begun

        await own.close()
        late = asyncio.create_task(own.load(one))

        assert await timeline.reader.load(TOKEN, count_long) == LONG_STEPS
        done = await asyncio.gather(*orphans, late, return_exceptions=True)
        assert {type(each) for each in done} == {asyncio.CancelledError}


# Long reads


async def test_a_load_that_takes_long_is_run_again_alone_and_the_others_are_not_held_up(
    timeline: Timeline,
) -> None:
    runs = 0

    async def operate(snapshot: Snapshot) -> tuple[int, int]:
        nonlocal runs
        runs += 1
        return await snapshot.load(one), await snapshot.load(count_long)

    slow = asyncio.create_task(timeline.reader.read(TOKEN, operate))
    for _ in range(5):
        assert await timeline.reader.load("another", one) == 1
    assert not slow.done()

    assert await slow == (1, LONG_STEPS)
    assert runs == 2


async def test_an_operation_that_goes_on_for_long_is_run_again_on_one_state(
    timeline: Timeline,
) -> None:
    ticket = await create_ticket(timeline)
    update = UpdateActivity(ticket.ticket_id, ticket.entry.activity_id, message="later")

    async def operate(snapshot: Snapshot) -> list[int]:
        seqs = [await last_seq(snapshot, ticket)]
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            seqs.append(await last_seq(snapshot, ticket))
            await asyncio.sleep(0.01)
        return seqs

    reading = asyncio.create_task(timeline.reader.read(TOKEN, operate))
    await timeline.submit(ADA, update)

    assert len(set(await reading)) == 1


async def test_a_token_may_have_some_long_reads_and_one_more_is_busy(timeline: Timeline) -> None:
    reads = [asyncio.create_task(timeline.reader.load(TOKEN, endless)) for _ in range(19)]
    done, _ = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)

    [refused] = done
    assert isinstance(refused.exception(), Busy)
    assert await timeline.reader.load("another", count_long) == LONG_STEPS
    for read in reads:
        read.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    assert await timeline.reader.load(TOKEN, count_long) == LONG_STEPS


async def test_reads_beyond_the_queue_are_busy(settings: Settings) -> None:
    timeline = create_timeline(settings.model_copy(update={"read_queue_size": 2}), Clock())
    async with running(timeline):
        reads = [timeline.reader.load(TOKEN, one) for _ in range(5)]
        found = await asyncio.gather(*reads, return_exceptions=True)

        assert [type(each) for each in found] == [int, int, Busy, Busy, Busy]
        assert await timeline.reader.load(TOKEN, one) == 1


# Closing


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 8, 12])
@pytest.mark.parametrize("work", [one, endless])
async def test_a_read_is_answered_in_whatever_phase_the_reader_stops(
    settings: Settings, steps: int, work: Callable[[Session], int]
) -> None:
    reader = create_timeline(settings, Clock()).reader
    threads = threading.active_count()
    serving = asyncio.create_task(reader.run())
    reads = [asyncio.create_task(reader.load(TOKEN, one)) for _ in range(3)]
    reads.append(asyncio.create_task(reader.load(TOKEN, work)))
    for _ in range(steps):
        await asyncio.sleep(0.001 * (steps > 6))
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)

    async with asyncio.timeout(10):
        if work is endless:
            await asyncio.wait(reads[:3])
            reads[3].cancel()
        found = await asyncio.gather(*reads, return_exceptions=True)
    assert {type(each) for each in found} <= {int, Busy, asyncio.CancelledError}
    with pytest.raises(Busy, match="shutting down"):
        await reader.load(TOKEN, one)
    with pytest.raises(Busy, match="shutting down"):
        await reader.own_snapshot(TOKEN).load(one)
    await threads_end(threads)


async def test_a_connection_that_breaks_is_replaced(timeline: Timeline) -> None:
    def break_it(session: Session) -> None:
        connection = session.connection().connection.dbapi_connection
        assert connection is not None
        connection.close()

    for _ in range(5):
        await asyncio.gather(timeline.reader.load(TOKEN, break_it), return_exceptions=True)
        own = timeline.reader.own_snapshot(TOKEN)
        await own.load(break_it)
        await own.close()
    # Whoever met the broken connection is told so; those after it are served.
    found = [
        (await asyncio.gather(timeline.reader.load(TOKEN, one), return_exceptions=True))[0]
        for _ in range(5)
    ]

    assert found[-1] == 1


# Text search and the deadline

SEARCHES_THAT_DIFFER = " ".join(
    f'f{year}: activities(filter: {{text: $text, until: "{year}-01-01T00:00:00Z"}}) '
    "{ filteredCount }"
    for year in range(2050, 2070)
)
SEARCH = (
    f"query Search($id: ID!, $text: String!) {{ ticket(id: $id) {{ {SEARCHES_THAT_DIFFER} }} }}"
)
COUNT = """
query Count($id: ID!, $text: String!) { ticket(id: $id) {
  activities(filter: {text: $text}) { filteredCount }
} }
"""
WORDS = " ".join("é" * length for length in range(1, MAX_TEXT_WORDS + 1))


async def many_large_messages(service: Service, client: Client, count: int) -> str:
    """Create a ticket with entries of 65,000 É behind the service's back."""
    ticket_id = await client.create_ticket(message="É" * 65_000)
    is_sqlite = service.settings.database_url.startswith("sqlite")
    new_id = "lower(hex(randomblob(16)))" if is_sqlite else "gen_random_uuid()"
    others = ", ".join(column.name for column in rows.ACTIVITY.c if column.name != "id")
    await service.execute(
        f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
        INSERT INTO ticket_activity (id, {others})
        SELECT {new_id}, {others} FROM ticket_activity, n WHERE ticket_id = :ticket""",  # noqa: S608
        count=count - 1,
        ticket=UUID(ticket_id),
    )
    return ticket_id


async def test_the_deadline_stops_a_statement_that_runs(settings: Settings) -> None:
    swift = settings.model_copy(update={"query_deadline_seconds": 0.5, "long_read_connections": 1})
    async with start(swift) as service:
        client, other = await service.client(), await service.client()
        ticket_id = await many_large_messages(service, client, 400)

        began = time.monotonic()
        searching = asyncio.create_task(client.graphql(SEARCH, id=ticket_id, text=WORDS))
        while not searching.done():
            assert await other.create_ticket()
        [error] = (await searching)["errors"]
        took = time.monotonic() - began

        assert error["extensions"]["code"] == "DEADLINE_EXCEEDED"
        assert took < 10  # where it was 27 seconds
        # The one connection for long reads is free again.
        small = await other.create_ticket(message="words")
        answer = await other.graphql(COUNT, id=small, text="WORD")
        assert answer["data"]["ticket"]["activities"]["filteredCount"] == 1


@pytest.mark.sqlite  # PostgreSQL does not count what a function reads
async def test_a_search_reads_only_so_much(settings: Settings) -> None:
    bounded = settings.model_copy(update={"max_search_characters": 650_000})
    async with start(bounded) as service:
        client = await service.client()
        enough = await many_large_messages(service, client, 10)
        too_many = await many_large_messages(service, client, 11)

        found = await client.graphql(COUNT, id=enough, text="é é é")
        assert found["data"]["ticket"]["activities"]["filteredCount"] == 10
        [error] = (await client.graphql(COUNT, id=too_many, text="é"))["errors"]
        assert error["extensions"]["code"] == QueryTooComplex.code
        assert "650,000 characters" in error["message"]
        # Each operation has the whole of it.
        again = await client.graphql(COUNT, id=enough, text="é")
        assert again["data"]["ticket"]["activities"]["filteredCount"] == 10


# Payloads of mutations

CREATE_AND_READ = """
mutation Create($input: CreateTicketActivityInput!) { createTicketActivity(input: $input) {
  ticketActivity { id message ticket { id activities { totalCount } } } userErrors { code } } }
"""


async def test_a_committed_mutation_says_so_whatever_its_payload_meets(settings: Settings) -> None:
    hurried = settings.model_copy(update={"query_deadline_seconds": 0.3})
    async with start(hurried) as service:
        client = await service.client()
        ticket_id = await client.create_ticket()
        reader = service.app.state.timeline.reader
        token_id = parse_token(client.token).id
        long_reads = [asyncio.create_task(reader.load(token_id, endless)) for _ in range(18)]
        while reader.long_reads[0] < hurried.max_long_reads_per_token:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        input_ = {"ticketId": ticket_id, "activityType": "COMMENT", "message": "kept"}

        # What the write itself has told needs no read.
        payload = await client.mutate(CREATE_ACTIVITY, **input_)
        document = await client.graphql(CREATE_AND_READ, input=input_)

        assert payload["ticketActivity"]["message"] == "kept"
        [error] = document["errors"]
        assert error["extensions"]["code"] == "COMMITTED_UNREAD"
        for read in long_reads:
            read.cancel()
        await asyncio.gather(*long_reads, return_exceptions=True)
        assert [message for *_, message in await service.history(ticket_id)][1:] == ["kept"] * 2


async def test_payloads_are_read_however_many_ask_at_once(service: Service) -> None:
    client = await service.client()
    ticket_id = await client.create_ticket()
    input_ = {"ticketId": ticket_id, "activityType": "COMMENT"}

    payloads = await asyncio.gather(
        *(client.mutate(CREATE_AND_READ, **input_, message=str(n)) for n in range(60))
    )

    counts = [each["ticketActivity"]["ticket"]["activities"]["totalCount"] for each in payloads]
    assert all(2 <= count <= 61 for count in counts)


async def test_pages_of_many_clients_of_one_token_are_never_busy(settings: Settings) -> None:
    # On a busy machine it takes longer than a query usually may.
    async with start(settings.model_copy(update={"query_deadline_seconds": 100})) as service:
        client = await service.client()
        ticket_id = await client.create_ticket()
        for number in range(30):
            await client.create_activity(ticket_id, message=str(number))
        query = """query Q($id: ID!) { ticket(id: $id) { changesCursor activities(first: 50) {
          totalCount nodes { id message ticket { id }
          revisions(first: 5) { nodes { version } } } } } }"""

        documents = await asyncio.gather(*(client.graphql(query, id=ticket_id) for _ in range(100)))

        assert [document for document in documents if "errors" in document] == []


# The write-ahead log


async def test_a_connection_that_waits_keeps_no_snapshot(timeline: Timeline) -> None:
    has_begun, may_end = ([asyncio.Event() for _ in range(2)] for _ in range(2))

    def hold(number: int) -> asyncio.Task[int]:
        async def operate(snapshot: Snapshot) -> int:
            found = await snapshot.load(count_tickets)
            has_begun[number].set()
            await may_end[number].wait()
            return found

        return asyncio.create_task(timeline.reader.read(TOKEN, operate))

    held = []
    for number in range(2):  # each on a connection of its own
        held.append(hold(number))
        await has_begun[number].wait()
    third = asyncio.create_task(timeline.reader.load(TOKEN, count_tickets))
    await asyncio.sleep(0)  # it waits for a connection
    may_end[1].set()
    await held[1]
    may_end[0].set()
    await asyncio.gather(held[0], third)
    await create_ticket(timeline)

    async with asyncio.timeout(10):
        while not await timeline.reader.database.truncate_log():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
