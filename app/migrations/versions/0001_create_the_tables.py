"""Create the tables."""

import sqlalchemy as sa
from alembic import op

from app.models import UtcMilliseconds

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_token",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("created_at", UtcMilliseconds(), nullable=False),
        sa.Column("expires_at", UtcMilliseconds()),
        sa.Column("revoked_at", UtcMilliseconds()),
        sa.Column("last_used_at", UtcMilliseconds()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ticket",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("created_at", UtcMilliseconds(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("merged_into_id", sa.Uuid(), sa.ForeignKey("ticket.id")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ticket_activity",
        sa.Column("ticket_id", sa.Uuid(), sa.ForeignKey("ticket.id"), primary_key=True),
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("activity_type", sa.String(32), nullable=False),
        sa.Column("is_private", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcMilliseconds(), nullable=False),
        sa.Column("actor_id", sa.Uuid()),
        sa.Column("message", sa.Text()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("document_id", sa.Uuid()),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated_at", UtcMilliseconds(), nullable=False),
        sa.Column("updated_by_id", sa.Uuid()),
        sqlite_with_rowid=False,
    )
    op.create_index("uq_ticket_activity_id", "ticket_activity", ["id"], unique=True)
    op.create_table(
        "ticket_activity_change",
        sa.Column("ticket_id", sa.Uuid(), sa.ForeignKey("ticket.id"), primary_key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("activity_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("change_type", sa.String(32), nullable=False),
        sa.Column("changed_at", UtcMilliseconds(), nullable=False),
        sa.Column("changed_by_id", sa.Uuid()),
        sa.Column("message", sa.Text()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("is_private", sa.Boolean(), nullable=False),
        sa.Column("was_private", sa.Boolean()),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "uq_ticket_activity_change_version",
        "ticket_activity_change",
        ["ticket_id", "activity_id", "version"],
        unique=True,
    )


def downgrade() -> None:
    op.drop_table("ticket_activity_change")
    op.drop_table("ticket_activity")
    op.drop_table("ticket")
    op.drop_table("access_token")
