"""Erases an actor from a database, also while services use it, in many short transactions.

It can be stopped at any time: run again, it goes on.
"""

from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import UUID

from sqlmodel import Session

from app.activity.commands import RedactActivity
from app.activity.values import utc_now
from app.auth import Scope, Viewer
from app.main import create_timeline, running
from app.settings import Settings
from app.store import erasure
from app.store.engine import Database
from app.timeline import Timeline

REASON: Final = "Its author was erased."

Report = Callable[[str, int, int], None]
"""Takes what is counted, how many are done, and how many there are."""


async def erase_actor(settings: Settings, actor_id: UUID, report: Report, *, redacts: bool) -> UUID:
    """Replace the actor's id by a random one everywhere, which is returned; remove the name.

    With `redacts` everything in their entries is redacted, by nobody.
    """
    timeline = create_timeline(settings)
    async with running(timeline):
        database = timeline.reader.database
        begin = partial(erasure.begin_erasure, actor_id=actor_id, now=utc_now())
        replacement_id = await database.write(begin)
        # A service may write with one of their tokens for five more seconds.
        while await _replace(database, actor_id, replacement_id, report):
            pass
        if redacts:
            await _redact(timeline, replacement_id)
        await timeline.sweeper.forget_answers()

        def end(session: Session) -> None:
            erasure.end_erasure(session, actor_id)
            database.mark_erasure(session)

        await database.write(end)
        await database.erase()
    return replacement_id


async def _replace(database: Database, actor_id: UUID, replacement_id: UUID, report: Report) -> int:
    """Go over all tickets once. Return how many rows were changed."""
    tickets = await database.read(erasure.count_tickets)
    after, done, changed = None, 0, 0
    while True:
        step = partial(
            erasure.replace_in_tickets,
            actor_id=actor_id,
            replacement_id=replacement_id,
            after=after,
        )
        after, count = await database.write(step)
        if after is None:
            return changed
        changed += count
        done += erasure.TICKETS_AT_A_TIME
        report("tickets", min(done, tickets), tickets)


async def _redact(timeline: Timeline, actor_id: UUID) -> None:
    operator = Viewer(actor_id, "operator", frozenset(Scope), "operator")
    after = None
    while True:
        find = partial(erasure.find_unredacted, actor_id=actor_id, after=after)
        keys = await timeline.reader.database.read(find)
        if not keys:
            return
        commands = [
            RedactActivity(ticket_id, id_, reason=REASON, is_by_operator=True)
            for ticket_id, id_ in keys
        ]
        await timeline.submit_all(operator, commands)
        after = keys[-1]
