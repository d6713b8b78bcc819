"""The statements on the names of actors."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, select

from app.activity.actors import Actor, ActorUpdate
from app.activity.state import ABSENT
from app.store import rows
from app.store.parameters import is_among

_FIND = select(*rows.ACTOR_COLUMNS).where(is_among(rows.ACTOR.c.id, "ids"))


_INSERTS: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_CONTENT: Final = ("name", "avatar_url")


@cache
def _upsert(
    engine: str, names: Sequence[str] = _CONTENT, *, is_conditional: bool = False
) -> Insert:
    """Return the statement that sets these columns; if conditional, where the row is older."""
    statement = _INSERTS[engine](rows.ACTOR)
    new = statement.excluded
    result: Insert = statement.on_conflict_do_update(
        index_elements=["id"],
        set_={name: new[name] for name in (*names, "updated_at")},
        where=rows.ACTOR.c.updated_at < new.updated_at if is_conditional else None,
    )
    return result


def load_actors(session: Session, ids: Sequence[UUID]) -> dict[UUID, Actor]:
    """Return the actors of whom anything is known."""
    return {row[0]: Actor(*row) for row in session.exec(_FIND, params={"ids": ids})}


def upsert_actors(session: Session, updates: Sequence[ActorUpdate], now: datetime) -> list[Actor]:
    """Set what the updates give, and return the actors after that, in their order."""
    before = load_actors(session, [update.id for update in updates])
    after = [update.applied_to(before.get(update.id)) for update in updates]
    changed = [actor for actor in after if actor != before.get(actor.id)]
    if changed:
        # In the order of the ids, so that two processes cannot wait for each other.
        session.exec(
            _upsert(session.get_bind().dialect.name),
            params=[
                {
                    "id": actor.id,
                    "name": actor.name,
                    "avatar_url": actor.avatar_url,
                    "updated_at": now,
                }
                for actor in sorted(changed, key=lambda actor: actor.id)
            ],
        )
    return after


def record_actor(session: Session, update: ActorUpdate, issued_at: datetime) -> None:
    """Set what a token says of its actor, unless what is known of them is from then or later."""
    given = {name: getattr(update, name) for name in _CONTENT}
    names = tuple(name for name, value in given.items() if value is not ABSENT)
    values = {name: given[name] if name in names else None for name in _CONTENT}
    session.exec(
        _upsert(session.get_bind().dialect.name, names, is_conditional=True),
        params={"id": update.id, "updated_at": issued_at, **values},
    )
