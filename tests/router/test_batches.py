"""The hot loop over a batch agrees with the careful one: what it takes it packs alike, all else it leaves.

Whatever is asked is read by both. Then faults are planted in the hot loop, each of which must be found.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import batches
from router.batches import PIECE, BatchReader
from shard_node.limits import MAX_REFERENCE_BYTES
from shard_node.slots import SLOT_COUNT
from tests.router.batch_samples import (
    LATEST_MS,
    SETTINGS,
    UNUSUAL,
    Request,
    agree,
    batches_in_order,
    ordinary,
    with_field,
)
from tests.router.samples import ID, reader


@SETTINGS
@given(requests=batches_in_order(), data=st.data(), piece=st.integers(1, 4) | st.just(PIECE))
def test_what_is_in_order_is_packed_alike(requests: list[Request], data: st.DataObject, piece: int) -> None:
    """Any such batch is taken, and any of its rows make the same bundle, however long the pieces are."""
    rows = data.draw(st.lists(st.sampled_from(range(len(requests))), min_size=1, unique=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PIECE", piece)
        assert agree(requests, rows)


@SETTINGS
@given(
    requests=batches_in_order(),
    data=st.data(),
    unusual=st.sampled_from(UNUSUAL).map(lambda one: one[:2])
    | st.tuples(
        st.sampled_from(["transaction_id", "from_account", "to_account", "amount", "currency", "reference"]),
        st.text(st.characters(codec="utf-8"), max_size=70) | st.text("0123456789abcdef-., \n", max_size=36),
    ),
    piece=st.integers(1, 4),
)
def test_anything_in_one_field(
    requests: list[Request], data: st.DataObject, unusual: tuple[str, Any], piece: int
) -> None:
    """Whatever one field of one row holds, in whatever piece, the batch is left alone or packed alike."""
    row = data.draw(st.sampled_from(range(len(requests))))
    requests[row] = with_field(requests[row], *unusual)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PIECE", piece)
        agree(requests)


@pytest.mark.parametrize(("field", "value", "is_taken"), UNUSUAL, ids=lambda value: ascii(value)[:40])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_one_unusual_field(field: str, value: object, is_taken: bool, row: int) -> None:  # noqa: FBT001
    """What is read differently from case to case is left to the careful loop, wherever it stands."""
    requests = [ordinary(n) for n in (1, 2, 3)]
    requests[row] = with_field(requests[row], field, value)
    assert agree(requests) == is_taken


def test_nothing_asked() -> None:
    """An empty batch is the careful loop's, too."""
    assert not agree([])


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "5"), ("BHD", "5.000"), ("CLF", "5.0000")])
def test_decimals_of_other_currencies(currency: str, amount: str) -> None:
    """All decimals of the currency must be written, and no more."""
    one = with_field(with_field(ordinary(), "currency", currency), "amount", amount)
    assert agree([one, one])
    assert not agree([one, with_field(one, "amount", "5.00")])
    assert not agree([one, with_field(one, "amount", "0" + amount[1:])])


def test_a_spelling_does_not_hide_another() -> None:
    """An id that is too short is not made up for by one that is too long, nor a comma by one that lacks."""
    short, long = with_field(ordinary(1), "transaction_id", ID[:-1]), ordinary(2)
    long = with_field(long, "transaction_id", ID + "0")
    assert not agree([short, long])
    assert not agree(
        [with_field(ordinary(1), "from_account", "a,b"), with_field(ordinary(2), "from_account", "")]
    )
    assert not agree([with_field(ordinary(1), "amount", "1.00,2.00"), with_field(ordinary(2), "amount", "")])


@pytest.mark.parametrize("count", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 3])
def test_more_than_one_piece(count: int) -> None:
    """The rows of all pieces come in order, and one odd row in the last piece is as one in the first."""
    requests = [ordinary(n) for n in range(1, count + 1)]
    assert agree(requests, range(count - 1, -1, -7))
    timeless = [*requests[:-1], with_field(requests[-1], "transaction_id", ID)]
    assert agree(timeless)
    read = reader()
    packed = BatchReader(read.decimals).read(timeless, read.latest_id())
    assert packed is not None
    assert packed.bundle([0]).oldest_ms == 0
    for field, value in (
        ("amount", "1"),
        ("currency", "USD"),
        ("to_account", "alice"),
        ("reference", "x" * 257),
    ):
        assert not agree([*requests[:-1], with_field(requests[-1], field, value)])


def unusual_batches() -> Iterator[list[Request]]:
    """Every unusual field, each in a batch in which nothing else is unusual; and a plain batch."""
    yield [ordinary(n) for n in (1, 2, 3)]
    for field, value, _ in UNUSUAL:
        yield [ordinary(1), with_field(ordinary(2), field, value), ordinary(3)]


def _loose_amounts(character: str) -> Callable[[int], re.Pattern[str]]:
    return lambda digits: re.compile(rf"(?:{character}{{1,13}}\.{character}{{{digits}}},)+")


def _commas(texts: Sequence[str]) -> tuple[list[bytes], list[int]]:
    """Lets commas pass, and gives one account id too many the place of another that is lost."""
    names = [text.encode() for text in ",".join(texts).split(",")][: len(texts)]
    return names, [crc_hqx(name, 0) % SLOT_COUNT for name in names]


_READ_IDS = batches.read_ids
# Names in router.batches, and what is put in their place.
FAULTS: dict[str, dict[str, Any]] = {
    "a comma in an account id": {"read_accounts": _commas},
    "65 characters": {"_NAMES": re.compile(r"(?:[A-Za-z0-9._:{}\-][A-Za-z0-9._:@{}\-]{0,64},)+")},
    "system accounts": {"_NAMES": re.compile(r"(?:[A-Za-z0-9._:@{}\-]{1,64},)+")},
    "an empty account id": {"_NAMES": re.compile(r"(?:[A-Za-z0-9._:{}\-]?[A-Za-z0-9._:@{}\-]{0,63},)+")},
    "spaces in an account id": {
        "_NAMES": re.compile(r"(?:[\sA-Za-z0-9._:{}\-][\sA-Za-z0-9._:@{}\-]{0,63},)+")
    },
    "hash tags": {"slot": lambda text: crc_hqx(text.encode(), 0) % SLOT_COUNT},
    "ids of the future": {"read_ids": lambda texts, _: _READ_IDS(texts, b"\xff" * 6)},
    "the nil id": {"_NIL": b"\xff" * 16},
    "any UUID": {"read_ids": lambda texts, _: b"".join([UUID(text).bytes for text in texts])},
    "dashes anywhere": {"_DASHES": ()},
    "spaces in an id": {
        "read_ids": lambda texts, _: bytes.fromhex("".join(texts).replace("-", "")).ljust(48)
    },
    "other digits": {"_plain_amounts": _loose_amounts(r"\d")},
    "underscores": {"_plain_amounts": _loose_amounts("[0-9_]")},
    "sixteen digits": {"_plain_amounts": lambda _: re.compile(r"(?:[0-9]{1,14}\.[0-9]{2},)+")},
    "missing decimals": {"_plain_amounts": lambda _: re.compile(r"(?:[0-9]{1,13}(?:\.[0-9]{0,2})?,)+")},
    "zero": {"read_amounts": lambda texts, _: [int(text.replace(".", "")) for text in texts]},
    "long references": {"MAX_REFERENCE_BYTES": MAX_REFERENCE_BYTES + 1, "_LENGTHS": [b"\x00\x00"] * 600},
    "validate_only, or an account with itself": {"any": lambda _: False},
    "the terms' length": {"_TERMS_BYTES": 10},
    "the kind": {"_KIND": 2},
    "the oldest id": {"id_times_ms": lambda ids: (min(int.from_bytes(one[:6]) for one in ids), LATEST_MS)},
    "pieces that overlap": {"PIECE": 2, "range": lambda *ends: range(*ends) if len(ends) < 3 else (0, 1)},
}


def differences() -> int:
    """In how many of the unusual batches the two loops differ."""
    found = 0
    for requests in unusual_batches():
        try:
            agree(requests)
        # A fault may also make the hot loop itself fail, where it should have left the batch alone.
        except (AssertionError, IndexError):
            found += 1
    return found


def test_no_difference_without_a_fault() -> None:
    """What the faults are measured against."""
    assert differences() == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hot loop that lets through or packs what it should not differs in some unusual batch."""
    for name, value in FAULTS[fault].items():
        monkeypatch.setattr(batches, name, value, raising=name not in {"any", "range"})
    assert differences() > 0
