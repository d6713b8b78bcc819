"""Tells all processes that rows of tickets have changed without a change in the history.

What they have cached of such a ticket is of another edition, and they no longer show it.
"""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from sqlalchemy import select, update
from sqlmodel import Session

from app.store import rows
from app.store.parameters import is_among

_TICKET = rows.TICKET.c
_LOCK: Final = (
    select(_TICKET.id)
    .where(is_among(_TICKET.id, "ids"))
    .order_by(_TICKET.id)
    .with_for_update(key_share=True)
)
_NEXT_EDITION: Final = (
    update(rows.TICKET).where(is_among(_TICKET.id, "ids")).values(edition=_TICKET.edition + 1)
)


def hold_tickets(session: Session, ids: Collection[UUID]) -> None:
    """Let no other transaction change the tickets before the end of this one.

    They are locked in the order of the ids, as the writer locks them, so that two processes cannot
    wait for each other. A transaction locks all its tickets at once, and before it writes.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(_LOCK, {"ids": list(ids)}).close()


def begin_edition(session: Session, ids: Collection[UUID]) -> None:
    """Let tickets that are held be another edition, in the transaction that changes their rows."""
    session.connection().execute(_NEXT_EDITION, {"ids": list(ids)}).close()
