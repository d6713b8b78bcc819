"""Make the key that seals the cursors of feeds: one for all processes on this database."""

import secrets

import sqlalchemy as sa
from alembic import op

from app.activity.cursors import KEY_BYTES

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "cursor_key",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute(sa.insert(table).values(id=1, key=secrets.token_bytes(KEY_BYTES)))


def downgrade() -> None:
    op.drop_table("cursor_key")
