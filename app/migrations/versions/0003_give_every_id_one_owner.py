"""Give every id one owner: tickets and entries share one space of ids, which this table holds.

It takes the place of the unique index on the entries' ids, which did not know the tickets'.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "node",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("ticket_id", sa.Uuid(), sa.ForeignKey("ticket.id"), nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO node (id, ticket_id) SELECT id, id FROM ticket")
    # Earlier releases could let an entry take the id of a ticket: the ticket keeps it.
    op.execute(
        "INSERT INTO node (id, ticket_id) SELECT id, ticket_id FROM ticket_activity "
        "WHERE id NOT IN (SELECT id FROM ticket)"
    )
    op.drop_index("uq_ticket_activity_id", "ticket_activity")


def downgrade() -> None:
    op.create_index("uq_ticket_activity_id", "ticket_activity", ["id"], unique=True)
    op.drop_table("node")
