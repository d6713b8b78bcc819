"""Find the tickets that were merged into one. Nothing looks for their entries any more."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_ticket_activity_merge", "ticket_activity")
    is_merged = sa.text("merged_into_id IS NOT NULL")
    op.create_index(
        "ix_ticket_merged",
        "ticket",
        ["merged_into_id"],
        sqlite_where=is_merged,
        postgresql_where=is_merged,
    )


def downgrade() -> None:
    op.drop_index("ix_ticket_merged", "ticket")
    is_merge = sa.text("activity_type = 'merged_into'")
    op.create_index(
        "ix_ticket_activity_merge",
        "ticket_activity",
        ["ticket_id", "activity_type", "deleted_at", "is_private"],
        sqlite_where=is_merge,
        postgresql_where=is_merge,
    )
