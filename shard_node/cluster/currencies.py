"""How many decimals a currency has: its exponent.

Amounts are kept in minor units, so what stored money is worth hangs on the exponents. They are part of the
cluster's data: ZooKeeper gets a currency's exponent, from the ISO 4217 package of that day, before the first
account of the currency opens, and the ledger a copy of it before the first entry. From then on it never
changes, and no release of the package has a say in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, Protocol

import structlog

from shard_node.errors import ExponentUnknownError

# With more, not even one unit would be within 2^53 - 1 minor units.
MAX_EXPONENT: Final = 15

log = structlog.get_logger(__name__)


class Exponents(dict[str, int]):
    """Exponents by currency code. Grows, and never changes what it has.

    Looking up a currency that is not there raises ExponentUnknownError.
    """

    __slots__ = ()

    def __missing__(self, currency: str) -> int:
        raise ExponentUnknownError(
            f"how many decimals the currency {currency!r} has is not known: none are stored for it"
        )

    def learn(self, stored: Mapping[str, int]) -> None:
        """Takes in what the cluster has stored; says once where the package, or a later change, differs."""
        for currency, exponent in stored.items():
            if currency in self:
                if self[currency] != exponent:
                    log.error(
                        "the stored exponent of a currency was changed: the first one stays in force here",
                        currency=currency,
                        first=self[currency],
                        changed=exponent,
                    )
                continue
            self[currency] = exponent
            if package_exponent(currency) != exponent:
                log.warning(
                    "the ISO 4217 package differs from a currency's stored exponent, which stays in force",
                    currency=currency,
                    stored=exponent,
                    package=package_exponent(currency),
                )


class Currencies(Protocol):
    """The exponents that the cluster has stored: :class:`shard_node.cluster.registry.Registry`."""

    @property
    def exponents(self) -> Exponents:
        """Those that are known here."""

    async def require_exponents(self, currencies: Iterable[str]) -> None:
        """Returns when all of these are known here; reads those anew that are not.

        Raises ExponentUnknownError when the cluster has stored none for one of them, and RegistryError when
        ZooKeeper does not answer.
        """

    async def store_exponents(self, wanted: Mapping[str, int]) -> None:
        """Stores an exponent for each of these currencies that has none. All are known here afterwards.

        Raises RegistryError when ZooKeeper does not answer: they may be stored or not.
        """


@lru_cache(maxsize=512)
def package_exponent(currency: str) -> int | None:
    """The exponent that the installed ISO 4217 package has; None for a code without one.

    Only for a currency that is new to the cluster.
    """
    # Takes longer to load than most commands to run, few of which need it.
    from iso4217 import Currency  # noqa: PLC0415

    try:
        found: int | None = Currency(currency).exponent
    except ValueError:
        return None
    return found


def to_json(exponents: Mapping[str, int]) -> bytes:
    """What ZooKeeper keeps."""
    return json.dumps(exponents, sort_keys=True).encode()


def from_json(content: bytes) -> dict[str, int]:
    """What ZooKeeper has kept. Raises ValueError when that is something else."""
    stored = json.loads(content)
    if not isinstance(stored, dict):
        raise ValueError("no object of exponents by currency")  # noqa: TRY004 -- as json's own errors
    for currency, exponent in stored.items():
        if type(exponent) is not int or not 0 <= exponent <= MAX_EXPONENT:
            raise ValueError(f"{exponent!r} is no exponent, of {currency!r}")
    return stored
