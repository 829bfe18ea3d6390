"""The first schema: shards, batches, entries.

Written out rather than taken from ``schema``: what a step made must not change with the code after it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "shards",
        sa.Column("shard_number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("shard_id", sa.Text, nullable=False),
        sa.UniqueConstraint("shard_id", name="shards_shard_id"),
    )
    op.create_table(
        "batches",
        sa.Column("shard_number", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("first_sequence", sa.BigInteger, nullable=False),
        sa.Column("entry_count", sa.Integer, nullable=False),
        sa.Column("stream_id", sa.Text, nullable=False),
        sa.Column("first_at_ms", sa.BigInteger, nullable=False),
        sa.Column("last_at_ms", sa.BigInteger, nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("archived_at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("shard_number", "number", name="batches_pk"),
    )
    op.create_table(
        "entries",
        sa.Column(
            "entry_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("account_id", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("transaction_id", sa.LargeBinary(16), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(8), nullable=True),
        sa.Column("leg", sa.SmallInteger, nullable=False),
        sa.Column("leg_count", sa.SmallInteger, nullable=False),
        sa.Column("counterparty", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("delta", sa.BigInteger, nullable=False),
        sa.Column("held_delta", sa.BigInteger, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("related_id", sa.LargeBinary(16), nullable=True),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("external_id", sa.Text, nullable=False),
        sa.Column("initiated_by", sa.Text, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
    )
    op.create_index("entries_account_version", "entries", ["account_id", "version"], unique=True)
    op.create_index("entries_transaction", "entries", ["transaction_id"])
    held = sa.text("held_delta <> 0")
    op.create_index(
        "entries_held", "entries", ["account_id", "version"], sqlite_where=held, postgresql_where=held
    )


def downgrade() -> None:
    """Never: a ledger is not taken apart."""
    raise NotImplementedError("the first step of the ledger's schema cannot be undone")
