"""The statements on the names of actors."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, select

from app.activity.actors import Actor, ActorUpdate
from app.store import rows
from app.store.parameters import is_among

_FIND = select(*rows.ACTOR_COLUMNS).where(is_among(rows.ACTOR.c.id, "ids"))


def _upsert(insert: Any) -> Insert:
    statement = insert(rows.ACTOR)
    new = statement.excluded
    result: Insert = statement.on_conflict_do_update(
        index_elements=["id"],
        set_={"name": new.name, "avatar_url": new.avatar_url, "updated_at": new.updated_at},
    )
    return result


_UPSERTS: Final = {"sqlite": _upsert(sqlite.insert), "postgresql": _upsert(postgresql.insert)}


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
            _UPSERTS[session.get_bind().dialect.name],
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
