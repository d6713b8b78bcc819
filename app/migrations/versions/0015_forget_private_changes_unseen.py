"""Tell apart which removed changes others than those who see private entries could be told of.

Of what was removed before nothing is known, so all of it counts as public.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("forgotten_public_seq", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("ticket", column)
    op.execute("UPDATE ticket SET forgotten_public_seq = forgotten_seq WHERE forgotten_seq > 0")


def downgrade() -> None:
    op.drop_column("ticket", "forgotten_public_seq")
