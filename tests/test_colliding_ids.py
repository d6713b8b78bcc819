"""Ids of tickets and entries are one space, however commands that claim them are batched."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update
from sqlmodel import Session

from app.activity.commands import (
    Command,
    CreateActivity,
    CreateTicket,
    DeleteActivity,
    MergeTickets,
    Past,
    RedactActivity,
    RestoreActivity,
    UpdateActivity,
)
from app.activity.outcomes import Outcome
from app.activity.state import ABSENT, ActivityType
from app.auth import Scope, Viewer
from app.errors import UserError
from app.main import create_timeline, running
from app.settings import Settings
from app.store import rows
from app.timeline import Timeline
from tests.support.service import CREATE_ACTIVITY, CREATE_TICKET, Clock, Service

ADA = Viewer(UUID(int=1), "Ada", frozenset(Scope), "test")
TICKETS = [UUID(f"0190a3f0-0000-7000-8000-00000000000{number}") for number in range(3)]
OPENING_ENTRIES = [CreateTicket(id_, None, {}).entry.activity_id for id_ in TICKETS]
IDS = [*TICKETS, *OPENING_ENTRIES, UUID("0190a3f0-0000-7000-8000-00000000000f")]

ids, ticket_ids = st.sampled_from(IDS), st.sampled_from(TICKETS)
messages = st.sampled_from([None, "one", "two"])
merged = st.builds(lambda id_: {"ticketId": str(id_)}, ticket_ids)
times = st.none() | st.sampled_from([Clock.now - timedelta(days=days) for days in (-1, 0, 1, 400)])
pasts = st.builds(Past, times, times, st.sampled_from([ABSENT, None, UUID(int=2)]))
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(CreateTicket, ticket_ids | ids, messages, st.just({})),
    st.builds(
        CreateActivity,
        ticket_ids | ids,
        ids,
        st.just(ActivityType.COMMENT),
        messages,
        st.just({}),
        st.just(False),
        st.none(),
    ),
    st.builds(MergeTickets, ticket_ids, ticket_ids, ids, ids).filter(
        lambda merge: merge.merged_into_id != merge.merged_from_id  # they are random ids
    ),
    st.builds(
        CreateActivity,
        ticket_ids,
        ids,
        st.just(ActivityType.COMMENT),
        messages,
        st.just({}),
        st.booleans(),
        st.none(),
        pasts,
    ),
    st.builds(CreateTicket, ticket_ids, messages, st.just({}), pasts),
    st.builds(UpdateActivity, ticket_ids | ids, ids, messages),
    st.builds(UpdateActivity, ticket_ids, ids, metadata=merged, allows_merged=st.booleans()),
    st.builds(DeleteActivity, ticket_ids | ids, ids),
    st.builds(RedactActivity, ticket_ids | ids, ids, st.just("a reason")),
    st.builds(RestoreActivity, ticket_ids | ids, ids, st.integers(1, 4)),
)


TABLES = (rows.NODE, rows.TICKET, rows.ACTIVITY, rows.CHANGE)


def read_tables(session: Session) -> dict[str, list[Any]]:
    connection = session.connection()
    return {
        table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
        for table in TABLES
    }


def empty_tables(session: Session) -> None:
    session.connection().execute(update(rows.TICKET).values(merged_into_id=None))
    for table in (rows.CHANGE, rows.ACTIVITY, rows.NODE, rows.TICKET):
        session.connection().execute(delete(table))


def summary(outcome: Outcome | BaseException) -> object:
    if isinstance(outcome, Outcome):
        return outcome
    assert isinstance(outcome, UserError), repr(outcome)
    return outcome.code, outcome.path


async def submit(timeline: Timeline, command: Command) -> Outcome:
    """Submit a command in its turn; a redaction without what the timeline removes before it."""
    command.check(timeline.limits)
    return await timeline.writer.submit(ADA, command)


async def carry_out(
    blank: Settings, sequence: Sequence[Command], batch_size: int | None
) -> tuple[list[object], dict[str, list[Any]]]:
    """Submit all at once to a writer whose batches hold that many; return outcomes and tables.

    Without a batch size they are submitted as one.
    """
    wanted = blank.model_copy(update={"write_batch_size": batch_size or 1})
    timeline = create_timeline(wanted, Clock())
    async with running(timeline):
        database = timeline.reader.database
        await database.write(empty_tables)
        outcomes: Sequence[Outcome | BaseException]
        if batch_size is None:
            outcomes = await timeline.submit_all(ADA, sequence)
        else:
            outcomes = await asyncio.gather(
                *(submit(timeline, command) for command in sequence), return_exceptions=True
            )
        tables = await database.read(read_tables)
    return [summary(outcome) for outcome in outcomes], tables


@settings(
    max_examples=25,
    suppress_health_check=list(HealthCheck),
)
@given(sequence=st.lists(commands, min_size=2, max_size=12))
async def test_any_commands_lead_to_the_same_however_they_are_batched(
    blank: Settings, sequence: list[Command]
) -> None:
    sizes = (len(sequence), 3, 1, None)
    found = [await carry_out(blank, sequence, batch_size) for batch_size in sizes]

    assert found[0] == found[1] == found[2] == found[3]
    state = found[0][1]
    owners = [row[0] for row in state["node"]]
    stored = [row[0] for row in state["ticket"]] + [row[1] for row in state["ticket_activity"]]
    assert sorted(owners) == sorted(stored)
    assert len(set(stored)) == len(stored)


async def test_the_opening_entry_of_a_ticket_cannot_take_the_id_of_another_entry(
    service: Service,
) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()
    contested, other = OPENING_ENTRIES[0], TICKETS[0]

    created, refused = await asyncio.gather(
        author.mutate(
            CREATE_ACTIVITY, ticketId=ticket_id, id=str(contested), activityType="COMMENT"
        ),
        author.mutate(CREATE_TICKET, id=str(other)),
    )
    again = await author.mutate(CREATE_TICKET, id=str(other))

    assert created["userErrors"] == []
    assert await author.find(ticket_id, contested) == created["ticketActivity"]
    for payload in (refused, again):
        [error] = payload["userErrors"]
        assert (error["code"], error["path"]) == ("ID_TAKEN", ["input", "id"])
    assert [seq for seq, *_ in await service.history(ticket_id)] == [1, 2]


async def test_an_entry_cannot_take_the_id_of_a_ticket(service: Service) -> None:
    author = await service.client()
    ticket_id = await author.create_ticket()

    payload = await author.mutate(
        CREATE_ACTIVITY, ticketId=ticket_id, id=ticket_id, activityType="COMMENT"
    )

    [error] = payload["userErrors"]
    assert (error["code"], error["path"]) == ("ID_TAKEN", ["input", "id"])
