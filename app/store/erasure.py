"""The statements that erase an actor: each function is a unit of work that can be repeated."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import Column, delete, func, insert, or_, select, tuple_, update
from sqlmodel import Session

from app.activity.state import Key
from app.store import rows
from app.store.actors import hold_actors
from app.store.edition import begin_edition
from app.store.idempotency import forget_answers

TICKETS_AT_A_TIME: Final = 200
ENTRIES_AT_A_TIME: Final = 100

_ERASURE = rows.ACTOR_ERASURE.c
_ACTIVITY = rows.ACTIVITY.c
_PLACES: Final = (
    _ACTIVITY.actor_id,
    _ACTIVITY.updated_by_id,
    rows.CHANGE.c.changed_by_id,
    rows.CHANGE.c.recorded_by_id,
)
"""Where tickets, their entries and their history name actors."""

_KINDS: Final[dict[str, Sequence[Column[object]]]] = {
    "entries": (_ACTIVITY.actor_id, _ACTIVITY.updated_by_id),
    "versions in the history": (rows.CHANGE.c.changed_by_id, rows.CHANGE.c.recorded_by_id),
    "tokens": (rows.TOKEN.c.actor_id,),
    "idempotency keys": (rows.IDEMPOTENCY_KEY.c.actor_id,),
    "names": (rows.ACTOR.c.id,),
}


def count_traces(session: Session, actor_id: UUID) -> dict[str, int]:
    """Count the rows of each kind that name the actor."""
    connection = session.connection()
    return {
        kind: connection.execute(
            select(func.count()).where(or_(*(column == actor_id for column in columns)))
        ).scalar_one()
        for kind, columns in _KINDS.items()
    }


def begin_erasure(session: Session, actor_id: UUID, now: datetime) -> UUID:
    """Revoke the actor's tokens, and remove name and keys. Return the id that replaces theirs.

    It is random, and the same each time until the erasure ends.
    """
    hold_actors(session)
    connection = session.connection()
    found = select(_ERASURE.replacement_id).where(_ERASURE.actor_id == actor_id)
    replacement_id: UUID | None = connection.execute(found).scalar()
    if replacement_id is None:
        replacement_id = uuid4()
        row = {"actor_id": actor_id, "replacement_id": replacement_id}
        connection.execute(insert(rows.ACTOR_ERASURE).values(row))
    tokens = update(rows.TOKEN).where(rows.TOKEN.c.actor_id == actor_id)
    connection.execute(tokens.where(rows.TOKEN.c.revoked_at.is_(None)).values(revoked_at=now))
    connection.execute(tokens.values(actor_id=replacement_id, name="erased"))
    connection.execute(delete(rows.ACTOR).where(rows.ACTOR.c.id == actor_id))
    keys = rows.IDEMPOTENCY_KEY
    connection.execute(delete(keys).where(keys.c.actor_id == actor_id))
    return replacement_id


def replace_in_tickets(
    session: Session, actor_id: UUID, replacement_id: UUID, after: UUID | None
) -> tuple[UUID | None, int]:
    """Replace the id on the next tickets; return the last of them and how many rows changed.

    The tickets are locked as the writer locks them, since it writes back what it has read of them.
    Those that change are another edition from then on: no process shows what it has cached of them.
    """
    connection = session.connection()
    ids = select(rows.TICKET.c.id).order_by(rows.TICKET.c.id).limit(TICKETS_AT_A_TIME)
    if after is not None:
        ids = ids.where(rows.TICKET.c.id > after)
    found = connection.execute(ids.with_for_update(key_share=True)).scalars().all()
    if not found:
        return None, 0
    changed, count = set[UUID](), 0
    for place in _PLACES:
        of = place.table.c.ticket_id
        is_theirs = (of >= found[0]) & (of <= found[-1]) & (place == actor_id)
        changed.update(connection.execute(select(of).where(is_theirs).distinct()).scalars())
        statement = update(place.table).where(is_theirs).values({place.name: replacement_id})
        count += connection.execute(statement).rowcount
    begin_edition(session, changed)
    return found[-1], count


def count_tickets(session: Session) -> int:
    statement = select(func.count()).select_from(rows.TICKET)
    return session.connection().execute(statement).scalar_one()


def find_unredacted(session: Session, actor_id: UUID, after: Key | None) -> list[Key]:
    """Return the next entries of an actor that hold, or have held, what is not redacted."""
    key = tuple_(_ACTIVITY.ticket_id, _ACTIVITY.id)
    statement = (
        select(_ACTIVITY.ticket_id, _ACTIVITY.id)
        .where(
            _ACTIVITY.actor_id == actor_id,
            func.coalesce(_ACTIVITY.redacted_version, 0) < _ACTIVITY.version,
        )
        .order_by(_ACTIVITY.ticket_id, _ACTIVITY.id)
        .limit(ENTRIES_AT_A_TIME)
    )
    if after is not None:
        statement = statement.where(key > after)
    return [(ticket_id, id_) for ticket_id, id_ in session.connection().execute(statement)]


def end_erasure(session: Session, actor_id: UUID) -> None:
    """Forget which id took the place of the actor's, and the answers that may show it."""
    forget_answers(session)
    statement = delete(rows.ACTOR_ERASURE).where(_ERASURE.actor_id == actor_id)
    session.connection().execute(statement)
