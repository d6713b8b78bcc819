"""Count the entries of a timeline from an index alone: it holds all that decides who sees them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_NAME = "ix_ticket_activity_created"
_PLACE = ["ticket_id", "created_at", "id"]
_SIGHT = ["deleted_at", "is_private", "actor_id"]


def _replace(columns: list[str]) -> None:
    is_listed = sa.text("deleted_at IS NULL")
    op.drop_index(_NAME, "ticket_activity")
    op.create_index(
        _NAME, "ticket_activity", columns, sqlite_where=is_listed, postgresql_where=is_listed
    )


def upgrade() -> None:
    _replace(_PLACE + _SIGHT)


def downgrade() -> None:
    _replace(_PLACE)
