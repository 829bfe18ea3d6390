"""How many decimals each currency has. An archiver fills it from what is stored with the cluster."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "currencies",
        sa.Column("currency", sa.Text, primary_key=True),
        sa.Column("exponent", sa.SmallInteger, nullable=False),
    )


def downgrade() -> None:
    """Never: without it nobody knows what the amounts are worth."""
    raise NotImplementedError("the currencies of a ledger are not taken away")
