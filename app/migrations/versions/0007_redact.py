"""Let entries be redacted: the version that did it, and its reason in the history."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ticket_activity", sa.Column("redacted_version", sa.Integer()))
    op.add_column("ticket_activity_change", sa.Column("reason", sa.Text()))


def downgrade() -> None:
    op.drop_column("ticket_activity_change", "reason")
    op.drop_column("ticket_activity", "redacted_version")
