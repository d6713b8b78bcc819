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
LOCK: Final = (
    select(_TICKET.id)
    .where(is_among(_TICKET.id, "ids"))
    # As the writer locks them: in the order of the ids.
    .order_by(_TICKET.id)
    .with_for_update(key_share=True)
)
"""Locks the tickets whose `ids` are given."""

_NEXT_EDITION: Final = (
    update(rows.TICKET).where(is_among(_TICKET.id, "ids")).values(edition=_TICKET.edition + 1)
)


def begin_edition(session: Session, ids: Collection[UUID]) -> None:
    """Let the tickets be another edition, in the transaction that changes their rows."""
    connection = session.connection()
    connection.execute(LOCK, {"ids": list(ids)}).close()
    connection.execute(_NEXT_EDITION, {"ids": list(ids)}).close()
