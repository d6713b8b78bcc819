"""Keep which id takes the place of an actor's, while the actor is erased."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "actor_erasure",
        sa.Column("actor_id", sa.Uuid(), primary_key=True),
        sa.Column("replacement_id", sa.Uuid(), nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("actor_erasure")
