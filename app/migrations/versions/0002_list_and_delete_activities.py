"""List and delete activities: a tombstone, and the orders that pages follow."""

import sqlalchemy as sa
from alembic import op

from app.models import UtcMilliseconds

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ORDERS = {
    "ix_ticket_activity_created": ["ticket_id", "created_at", "id"],
    "ix_ticket_activity_updated": ["ticket_id", "updated_at", "id"],
}


def upgrade() -> None:
    op.add_column("ticket_activity", sa.Column("deleted_at", UtcMilliseconds()))
    is_listed = sa.text("deleted_at IS NULL")
    for name, columns in _ORDERS.items():
        op.create_index(
            name,
            "ticket_activity",
            columns,
            sqlite_where=is_listed,
            postgresql_where=is_listed,
        )


def downgrade() -> None:
    for name in _ORDERS:
        op.drop_index(name, "ticket_activity")
    op.drop_column("ticket_activity", "deleted_at")
