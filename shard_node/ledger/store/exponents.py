"""How many decimals the ledger's currencies have: a copy of what is stored with the cluster.

So a ledger alone says what its amounts are worth, with no cluster and no ISO 4217 package at hand. A currency
is copied before its first entry is stored, and never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, select, text

from shard_node.cluster import Exponents
from shard_node.errors import LedgerError
from shard_node.ledger.store.schema import currencies

# Two archivers may add one at the same moment. Both databases have this form.
_ADD: Final = text(
    "INSERT INTO currencies (currency, exponent) VALUES (:currency, :exponent) ON CONFLICT DO NOTHING"
)


def read_exponents(connection: Connection, cluster: Mapping[str, int]) -> Exponents:
    """Those of the ledger.

    Raises LedgerError when the cluster has stored another one for a currency: then one of the two is wrong,
    and neither is to be obeyed.
    """
    rows = connection.execute(select(currencies.c.currency, currencies.c.exponent))
    found = Exponents({row.currency: row.exponent for row in rows})
    for currency, exponent in sorted(found.items()):
        if cluster.get(currency, exponent) != exponent:
            raise LedgerError(
                f"the ledger has {exponent} decimals for {currency}, the cluster {cluster[currency]}: one of "
                "them was changed, or they do not belong together; the ledger is neither read nor written "
                "until they agree"
            )
    return found


def add_exponents(connection: Connection, cluster: Mapping[str, int]) -> None:
    """Adds those of the cluster that the ledger has not. Raises LedgerError as :func:`read_exponents`."""
    missing = cluster.keys() - read_exponents(connection, cluster).keys()
    if missing:
        rows = [{"currency": currency, "exponent": cluster[currency]} for currency in sorted(missing)]
        connection.execute(_ADD, rows)
        read_exponents(connection, cluster)
