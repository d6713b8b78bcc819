"""Keep idempotency keys, with what their requests came to."""

import sqlalchemy as sa
from alembic import op

from app.models import UtcMilliseconds

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotency_key",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("actor_id", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UtcMilliseconds(), nullable=False),
        sa.Column("verdicts", sa.JSON(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("headers", sa.JSON()),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("is_forgotten", sa.Boolean(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_key_created", "idempotency_key", ["created_at", "owner"])


def downgrade() -> None:
    op.drop_table("idempotency_key")
