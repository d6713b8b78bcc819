"""Keep when and by whom entries with a past of their own were written."""

import sqlalchemy as sa
from alembic import op

from app.models import UtcMilliseconds

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ticket_activity_change", sa.Column("recorded_at", UtcMilliseconds()))
    op.add_column("ticket_activity_change", sa.Column("recorded_by_id", sa.Uuid()))


def downgrade() -> None:
    op.drop_column("ticket_activity_change", "recorded_by_id")
    op.drop_column("ticket_activity_change", "recorded_at")
