"""The command `erase-actor`. It runs in short transactions, also while services use the database.

It can be stopped at any time: run again, it goes on.
"""

import argparse
import asyncio
from functools import partial
from typing import Final
from uuid import UUID

from sqlmodel import Session

from app.activity.commands import RedactActivity
from app.activity.values import utc_now
from app.auth import Scope, Viewer
from app.commands.databases import with_database
from app.commands.progress import show_progress
from app.environment import read_settings
from app.main import create_timeline, running
from app.settings import Settings
from app.store import erasure
from app.store.copying import Told
from app.store.engine import Database
from app.timeline import Timeline

REASON: Final = "Its author was erased."


def erase(options: argparse.Namespace) -> None:
    """Say what names the actor; with `--apply`, erase them."""
    settings = read_settings()
    counting = partial(erasure.count_traces, actor_id=options.id)
    traces = asyncio.run(with_database(settings, lambda database: database.read(counting)))
    for kind, count in traces.items():
        print(f"{count} {kind}")
    if not options.apply:
        print("Nothing is changed. Run it with --apply to erase the actor.")
        return
    new_id = asyncio.run(
        erase_actor(settings, options.id, show_progress, redacts=options.redact_messages)
    )
    print(f"Erased: {new_id} takes the place of the id.")


async def erase_actor(settings: Settings, actor_id: UUID, tell: Told, *, redacts: bool) -> UUID:
    """Replace the actor's id by a random one everywhere, which is returned; remove the name.

    With `redacts` everything in their entries is redacted, by nobody.
    """
    timeline = create_timeline(settings)
    async with running(timeline):
        database = timeline.reader.database
        begin = partial(erasure.begin_erasure, actor_id=actor_id, now=utc_now())
        replacement_id = await database.write(begin)
        # A service may write with one of their tokens for five more seconds.
        while await _replace(database, actor_id, replacement_id, tell):
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


async def _replace(database: Database, actor_id: UUID, replacement_id: UUID, tell: Told) -> int:
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
        tell("tickets", min(done, tickets), tickets)


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
