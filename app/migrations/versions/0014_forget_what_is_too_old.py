"""Let history and entries be removed: up to where they were, and how often rows were rewritten.

Earlier feed cursors become invalid: they do not say how old they are.
"""

import sqlalchemy as sa
from alembic import op

from app.models import UtcMilliseconds

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("forgotten_seq", "edition"):
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
        op.add_column("ticket", column)
    column = sa.Column("first_version", sa.Integer(), nullable=False, server_default="1")
    op.add_column("ticket_activity", column)
    op.add_column("cursor_key", sa.Column("valid_since", UtcMilliseconds()))


def downgrade() -> None:
    op.drop_column("cursor_key", "valid_since")
    op.drop_column("ticket_activity", "first_version")
    op.drop_column("ticket", "edition")
    op.drop_column("ticket", "forgotten_seq")
