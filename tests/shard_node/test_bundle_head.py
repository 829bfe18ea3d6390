"""What follows from a bundle's head, for bundles of all shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shard_node.contract import BundleHead, Effect, Kind, Leg, Transaction, bundle_of

_PAYER = Leg("payer", Effect.DEBIT, 7, "EUR")
_PLAIN = Transaction(bytes(16), Kind.TRANSFER, 5, (_PAYER, Leg("payee", Effect.CREDIT, 7, "EUR", 1)), b"abc")
_JOURNAL = replace(
    _PLAIN,
    kind=Kind.JOURNAL,
    legs=(
        _PAYER,
        Leg("a second one", Effect.DEBIT, 1, "EUR", 2),
        Leg("payee", Effect.CREDIT, 6, "EUR", 1),
        Leg("payee of the rest", Effect.CREDIT, 2, "EUR"),
    ),
)


def _changed(row: Transaction, *, versions: bool, currency: str) -> Transaction:
    legs = [replace(leg, currency=currency) for leg in row.legs]
    if versions:
        legs[0] = replace(legs[0], expected_version=3)
    return replace(row, legs=tuple(legs))


@pytest.mark.parametrize("principal", ["", "service"])
@pytest.mark.parametrize("versions", [False, True])
@pytest.mark.parametrize("second", ["EUR", "USD"])
@pytest.mark.parametrize("rows", [[_PLAIN], [_PLAIN, _PLAIN], [_JOURNAL], [_PLAIN, _JOURNAL, _PLAIN]])
def test_a_bundle_fits_its_head(rows: list[Transaction], second: str, versions: bool, principal: str) -> None:  # noqa: FBT001
    """Its length fits; it has so many transactions, and these participants have a leg."""
    last = _changed(rows[-1], versions=versions, currency=second)
    packed = bundle_of([*rows[:-1], last], principal)
    head = BundleHead.read(packed)
    assert head.transactions == len(rows)
    assert head.owners(packed) == ({0, 1, 2} if _JOURNAL in rows else {0, 1})


def test_no_other_length_fits() -> None:
    """A byte less or more is refused, wherever the bundle is cut."""
    packed = bundle_of([_PLAIN, _JOURNAL])
    for other in (*(packed[:size] for size in range(len(packed))), packed + b"\0"):
        with pytest.raises(ValueError, match="bytes"):
            BundleHead.read(other)
