"""Find the idempotency keys whose answers a redaction has to remove."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_kept = sa.text("is_forgotten IS FALSE")
    op.create_index(
        "ix_idempotency_key_kept",
        "idempotency_key",
        ["owner", "key"],
        sqlite_where=is_kept,
        postgresql_where=is_kept,
    )


def downgrade() -> None:
    op.drop_index("ix_idempotency_key_kept", "idempotency_key")
