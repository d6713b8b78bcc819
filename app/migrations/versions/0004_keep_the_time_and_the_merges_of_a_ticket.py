"""Keep the time of a ticket's newest change; find its merges by an index, and mend `mergedInto`.

Earlier releases let a merged_into entry be private, and did not look at it when its metadata
changed: `merged_into_id` is set anew from the public entries that stand, the newest first.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic import op

from app.activity.state import merge_target
from app.models import UtcMilliseconds

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_IS_MERGE = sa.text("activity_type = 'merged_into'")
_TICKET = sa.table("ticket", sa.column("id", sa.Uuid()), sa.column("merged_into_id", sa.Uuid()))
_MERGES = sa.text(
    "SELECT entry.ticket_id, entry.metadata FROM ticket_activity AS entry"
    " JOIN ticket_activity_change AS change ON change.ticket_id = entry.ticket_id"
    " AND change.activity_id = entry.id AND change.version = 1"
    " WHERE entry.activity_type = 'merged_into' AND entry.deleted_at IS NULL"
    " AND NOT entry.is_private ORDER BY change.seq"
).columns(ticket_id=sa.Uuid(), metadata=sa.JSON())


def upgrade() -> None:
    op.add_column(
        "ticket",
        # A default that every engine takes; no row keeps it, and no insert leaves the column out.
        sa.Column("last_changed_at", UtcMilliseconds(), nullable=False, server_default="epoch"),
    )
    op.execute(
        "UPDATE ticket SET last_changed_at = coalesce((SELECT max(changed_at)"
        " FROM ticket_activity_change WHERE ticket_id = ticket.id), created_at)"
    )
    op.create_index(
        "ix_ticket_activity_merge",
        "ticket_activity",
        ["ticket_id", "activity_type", "deleted_at", "is_private"],
        sqlite_where=_IS_MERGE,
        postgresql_where=_IS_MERGE,
    )
    op.execute("UPDATE ticket SET merged_into_id = NULL")
    for ticket_id, target_id in dict(_standing_merges()).items():
        op.execute(
            sa.update(_TICKET).where(_TICKET.c.id == ticket_id).values(merged_into_id=target_id)
        )


def _standing_merges() -> Iterator[tuple[UUID, Any]]:
    """Yield the ticket and the target of each merge, those of one ticket from old to new."""
    connection = op.get_bind()
    for ticket_id, metadata in connection.execute(_MERGES).all():
        target_id = merge_target(metadata)
        is_ticket = sa.select(_TICKET.c.id).where(_TICKET.c.id == target_id)
        if target_id and connection.execute(is_ticket).first():
            yield ticket_id, target_id


def downgrade() -> None:
    op.drop_index("ix_ticket_activity_merge", "ticket_activity")
    op.drop_column("ticket", "last_changed_at")
