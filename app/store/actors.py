"""The statements on the names of actors."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlmodel import Session, select

from app.activity.actors import Actor, ActorUpdate
from app.activity.state import ABSENT
from app.store import rows
from app.store.bulk import Conflict, insert_rows
from app.store.parameters import is_among

_FIND = select(*rows.ACTOR_COLUMNS).where(is_among(rows.ACTOR.c.id, "ids"))
_CONTENT: Final = ("name", "avatar_url")
_LOCK: Final = 6_273_940_115
"""Any number that nothing else in the database locks."""


def load_actors(session: Session, ids: Sequence[UUID]) -> dict[UUID, Actor]:
    """Return the actors of whom anything is known."""
    return {row[0]: Actor(*row) for row in session.exec(_FIND, params={"ids": ids})}


def hold_actors(session: Session) -> None:
    """Let no other process name actors until the end of the transaction.

    Those of one unit of work are named in any order, so two of them would wait for each other.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.connection().exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})").close()


def upsert_actors(session: Session, updates: Sequence[ActorUpdate], now: datetime) -> list[Actor]:
    """Set what the updates give, and return the actors after that, in their order."""
    before = load_actors(session, [update.id for update in updates])
    after = [update.applied_to(before.get(update.id)) for update in updates]
    changed = [actor for actor in after if actor != before.get(actor.id)]
    # In the order of the ids, so that two processes cannot wait for each other.
    insert_rows(
        session,
        rows.ACTOR,
        [
            {"id": one.id, "name": one.name, "avatar_url": one.avatar_url, "updated_at": now}
            for one in sorted(changed, key=lambda actor: actor.id)
        ],
        _overwrite,
    )
    return after


def record_actor(session: Session, update: ActorUpdate, issued_at: datetime) -> None:
    """Set what a token says of its actor, unless what is known of them is from then or later."""
    given = {name: getattr(update, name) for name in _CONTENT}
    names = tuple(name for name, value in given.items() if value is not ABSENT)
    row = {"id": update.id, "updated_at": issued_at}
    row |= {name: given[name] if name in names else None for name in _CONTENT}
    insert_rows(session, rows.ACTOR, [row], _overwrite_older(names))


def _overwrite(statement: Any) -> Any:
    """Set what the row has of an actor that is there already."""
    return statement.on_conflict_do_update(
        index_elements=["id"],
        set_={name: statement.excluded[name] for name in (*_CONTENT, "updated_at")},
    )


@cache
def _overwrite_older(names: Sequence[str]) -> Conflict:
    """Return what sets these columns of an actor that is there, where the row is newer."""

    def overwrite(statement: Any) -> Any:
        new = statement.excluded
        return statement.on_conflict_do_update(
            index_elements=["id"],
            set_={name: new[name] for name in (*names, "updated_at")},
            where=rows.ACTOR.c.updated_at < new.updated_at,
        )

    return overwrite
