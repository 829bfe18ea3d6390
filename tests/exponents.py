"""Exponents of the currencies that tests move, in place of a cluster's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shard_node.cluster.currencies import Exponents

EXPONENTS = Exponents({"EUR": 2, "USD": 2, "JPY": 0, "BHD": 3, "KWD": 3, "CLF": 4})


class CurrenciesStandIn:
    """What a cluster has stored, with nothing behind it. Keeps what it was asked to read anew."""

    def __init__(self, exponents: Exponents = EXPONENTS) -> None:
        self.exponents = exponents
        self.asked: list[str] = []

    async def require_exponents(self, currencies: Iterable[str]) -> None:
        """Knows no more than before."""
        for currency in currencies:
            if currency not in self.exponents:
                self.asked.append(currency)
            self.exponents[currency]

    async def store_exponents(self, wanted: Mapping[str, int]) -> None:
        """Nothing is new in these tests."""
        raise AssertionError(f"{wanted} is not to be stored")
