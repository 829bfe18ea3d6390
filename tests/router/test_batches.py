"""The hot loop over a batch agrees with the careful one: what it takes it packs alike, all else it leaves.

Whatever is asked is read by both. Then faults are planted in the hot loop, each of which must be found.
"""

# ruff: noqa: RUF001 -- characters that only look right are what some of these tests are about

from __future__ import annotations

import asyncio
import re
import string
from binascii import crc_hqx
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import batches
from router.batches import PIECE, BatchReader, answer
from router.engine import Engine
from router.fields import MAX_CLOCK_AHEAD_MS
from router.journal_engine import JournalEngine
from router.refusals import refusal
from router.service import WalletService
from shard_node.calls import Post
from shard_node.limits import MAX_REFERENCE_BYTES
from shard_node.outcomes import PAYEE, Outcome
from shard_node.slots import SLOT_COUNT
from tallystick.v1 import outcome_pb2, wallet_pb2
from tests.router.samples import ID, NOW_MS, reader, uuid7
from tests.router.stand_ins import (
    COMMITTED,
    Clock,
    CommittersStandIn,
    Context,
    MapsStandIn,
    ShardStandIn,
    cluster_cut_at,
    unpacked,
)

if TYPE_CHECKING:
    from shard_node.calls import Call
    from shard_node.journal_calls import JournalCall

Request = wallet_pb2.TransferRequest

SETTINGS = settings(max_examples=150, deadline=None)
DIGITS = {"EUR": 2, "JPY": 0, "BHD": 3, "CLF": 4}
LATEST_MS = NOW_MS + MAX_CLOCK_AHEAD_MS
NIL = str(UUID(int=0))

# One field that is not as in most batches, and whether the hot loop takes it all the same. Of euros.
UNUSUAL: list[tuple[str, Any, bool]] = [
    *(("transaction_id", text, True) for text in (uuid7(LATEST_MS), uuid7(0), str(UUID(int=1)))),
    *(
        ("transaction_id", text, True)
        for text in (ID.upper(), uuid7(NOW_MS).upper(), f"{ID[:9]}ABCD{ID[13:]}")
    ),
    # Later than any, but for its version; and of digits alone.
    *(
        ("transaction_id", text, True)
        for text in (f"ffffffff-ffff-4{ID[15:]}", "1" * 8 + "-1111" * 3 + "-" + "1" * 12)
    ),
    *(("transaction_id", text, False) for text in (uuid7(LATEST_MS + 1), uuid7(LATEST_MS + 1).upper(), NIL)),
    *(
        ("transaction_id", text, False)
        for text in (uuid7(2**48 - 1), "", ID[:-1], ID + "0", ID.replace("-", ""))
    ),
    *(
        ("transaction_id", text, False)
        for text in (f"{{{ID}}}", f"urn:uuid:{ID}", ID[:-1] + "g", ID[:-1] + "é")
    ),
    *(
        ("transaction_id", text, False)
        for text in (ID[:-2] + "  ", f" {ID[:-1]}", ID[:-2] + "\n\n", ID[:-1] + ",")
    ),
    *(
        ("transaction_id", text, False)
        for text in (ID[:-2] + "--", f"{ID[:7]}-{ID[7]}{ID[9:]}", "-" * 36, " " * 36)
    ),
    *(("transaction_id", text, False) for text in (ID.replace("-", " "), ID[:-1] + "٣", "--" + ID[2:])),
    *(
        ("from_account", text, True)
        for text in ("{a}:x", "{b}{a}", "{}a", "a{", "}{", "{", "a@b", "-", "x" * 64)
    ),
    *(
        ("from_account", text, False)
        for text in ("", "x" * 65, "a,b", ",", "a,", "@world:EUR", "@", "é", "a b", "a\n")
    ),
    *(("from_account", text, False) for text in ("bob", "ａ", "a\x00", "a/b")),
    *(("to_account", text, True) for text in ("{a}:x", "Alice", "{" * 64)),
    *(
        ("to_account", text, False)
        for text in ("", "x" * 65, "a,b", ",a", "@world:EUR", "éa", "alice", "\nb")
    ),
    *(("amount", text, True) for text in ("5.00", "05.00", "0.01", "9" * 13 + ".99", "0" * 12 + "1.00")),
    *(
        ("amount", text, False)
        for text in ("5", "5.0", "5.", ".50", "0.00", "000.00", "1,00", "5.00,", "1,0.00")
    ),
    *(
        ("amount", text, False)
        for text in ("٣.00", "3.٠٠", "5.000", "-5.00", "+5.00", " 5.00", "5.00\n", "5_0.00")
    ),
    *(
        ("amount", text, False)
        for text in ("", "9" * 14 + ".99", "1" + "0" * 13 + ".00", "0" * 13 + "1.00", "1e2.00")
    ),
    *(("amount", text, False) for text in ("90071992547409.91", "90071992547409.92", "1.0.00", "5.00.00")),
    *(("currency", text, False) for text in ("USD", "JPY", "", "eur", "EURO", "ZZZ", "XAU", "EU,")),
    *(("reference", text, True) for text in ("", "a,b\n\x00", "x" * 256, "é" * 128, "€" * 85, "😀" * 64)),
    *(("reference", text, False) for text in ("x" * 257, "é" * 128 + "x", "€" * 86, "😀" * 65)),
    ("validate_only", True, False),
]


def ordinary(number: int = 1) -> Request:
    """One of the transfers that most batches are made of; of euros."""
    return Request(
        transaction_id=uuid7(NOW_MS - number, seed=number),
        from_account="alice",
        to_account="bob",
        amount=f"{number}.50",
        currency="EUR",
    )


def with_field(request: Request, field: str, value: object) -> Request:
    """The same request but for one field."""
    other = Request()
    other.CopyFrom(request)
    setattr(other, field, value)
    return other


def agree(requests: Sequence[Request], *splits: Sequence[int]) -> bool:
    """Whether the hot loop takes the batch; it must then have read what the careful one reads.

    ``splits`` are rows of which bundles are compared, beside that of all rows and those of every third.
    """
    read = reader()
    packed = BatchReader(read.decimals).read(requests, read.latest_id())
    if packed is None:
        return False
    careful, bad, to_check = read.transfers(requests)
    assert not bad
    assert not to_check
    count = len(requests)
    assert len(packed) == len(careful) == count
    assert packed.texts == [request.transaction_id for request in requests]
    assert packed.payer_slots == careful.payer_slots
    assert packed.payee_slots == careful.payee_slots
    whole = careful.bundle(range(count))
    thirds = [range(first, count, 3) for first in range(min(3, count))]
    for rows in (range(count), *thirds, *splits):
        mine, other = packed.bundle(rows), careful.bundle(rows)
        assert mine == replace(other, oldest_ms=whole.oldest_ms, newest_ms=whole.newest_ms)
        # What a shard may conclude from the times of a bundle stays true.
        assert mine.oldest_ms <= other.oldest_ms
        assert mine.newest_ms >= other.newest_ms
    return True


ACCOUNT_CHARS = string.ascii_letters + string.digits + "._:{}-"
accounts = st.sampled_from(["alice", "{a}:1", "x" * 64]) | st.builds(
    str.__add__,
    st.sampled_from(ACCOUNT_CHARS),
    st.text(ACCOUNT_CHARS + "@", max_size=63),
)
ids = st.one_of(
    st.builds(uuid7, st.integers(0, LATEST_MS), st.integers(0, 2**32)),
    st.uuids(version=4).map(str),
    st.uuids(version=4).map(lambda one: str(one).upper()),
)
references = st.just("") | st.text(st.characters(codec="utf-8"), max_size=64)


@st.composite
def batches_in_order(draw: st.DrawFn, most: int = 9) -> list[Request]:
    """A batch that the hot loop takes."""
    currency = draw(st.sampled_from(list(DIGITS)))
    digits = DIGITS[currency]
    requests = []
    for _ in range(draw(st.integers(1, most))):
        payer, payee = draw(st.lists(accounts, min_size=2, max_size=2, unique=True))
        minor = draw(st.integers(1, 10**15 - 1))
        whole, fraction = divmod(minor, 10**digits)
        amount = f"{whole}.{fraction:0{digits}}" if digits else str(whole)
        requests.append(
            Request(
                transaction_id=draw(ids),
                from_account=payer,
                to_account=payee,
                amount=amount,
                currency=currency,
                reference=draw(references),
            )
        )
    return requests


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


# What shards say, by amount; and what a coordinator says.
VERDICTS = (
    Outcome.COMMITTED,
    Outcome.INSUFFICIENT_FUNDS,
    Outcome.COMMITTED,
    Outcome.BALANCE_LIMIT | PAYEE,
    Outcome.OUTCOME_UNKNOWN,
    Outcome.ACCOUNT_NOT_FOUND | PAYEE,
)


def _verdicts(amounts: bytes) -> bytes:
    return bytes(VERDICTS[amount % len(VERDICTS)] for amount in unpacked(amounts))


class JudgingShard(ShardStandIn):
    """A shard whose answer depends on the amount alone."""

    async def call(self, call: Call | JournalCall) -> Any:
        """A verdict a row."""
        assert isinstance(call, Post)
        return replace(await super().call(call), codes=(_verdicts(call.bundle.amounts),))


class JudgingCommitters(CommittersStandIn):
    """Coordinators whose answer depends on the amount alone."""

    async def commit(self, parts: Any, *rest: Any, **more: Any) -> Any:
        """A verdict a row."""
        response: Any = await super().commit(parts, *rest, **more)
        for (_, _, bundle), result in zip(parts, response.results, strict=True):
            result.outcomes = _verdicts(bundle.amounts)
        return response


async def served(
    requests: Sequence[Request], *, return_balances: bool
) -> tuple[bool, wallet_pb2.BatchTransferResponse]:
    """Whether the answer came from the hot loop, and what a caller reads; balances are taken out of it."""
    shards = JudgingShard("left"), JudgingShard("right")
    maps, committers = MapsStandIn(Clock(), cluster_cut_at(1, SLOT_COUNT // 2, *shards)), JudgingCommitters()
    service = WalletService(Engine(maps, committers), JournalEngine(maps, committers), maps, reader())
    asked = wallet_pb2.BatchTransferRequest(transfers=requests, return_balances=return_balances)
    told = await service.BatchTransfer(asked, Context())
    if isinstance(told, bytes):
        return True, wallet_pb2.BatchTransferResponse.FromString(told)
    for result in told.results:
        result.ClearField("from_available")
        result.ClearField("to_available")
    return False, told


@settings(SETTINGS, max_examples=80)
@given(
    requests=batches_in_order(),
    unusual=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(UNUSUAL)), max_size=2),
)
def test_both_ways_a_caller_is_told_the_same(
    requests: list[Request], unusual: list[tuple[int, tuple[str, Any, bool]]]
) -> None:
    """Who asks for balances, and so takes the careful way, gets the same results but for these."""
    for row, (field, value, _) in unusual:
        at = row % len(requests)
        requests[at] = with_field(requests[at], field, value)
    hot, told = asyncio.run(served(requests, return_balances=False))
    careful, expected = asyncio.run(served(requests, return_balances=True))
    assert hot == agree(requests)
    assert not careful
    assert told == expected
    assert len(told.results) == len(requests)


REFUSED = [
    # What does not fit is refused before any outcome.
    *(
        code
        for code in Outcome
        if Outcome.COMMITTED < code < Outcome.VALID and code != Outcome.INVALID_ARGUMENT
    ),
    *(code | PAYEE for code in (Outcome.ACCOUNT_FROZEN, Outcome.CURRENCY_MISMATCH, Outcome.BALANCE_LIMIT)),
    *(Outcome.SETTLED, Outcome.STALE_EPOCH),
]


@pytest.mark.parametrize("kind", [list, bytearray, bytes])
@pytest.mark.parametrize(
    "codes",
    [[COMMITTED], [COMMITTED] * 3, REFUSED, [REFUSED[0]] * 2, [COMMITTED, *REFUSED, COMMITTED]],
    ids=["one", "all committed", "all refused", "all refused alike", "mixed"],
)
def test_answer(codes: list[int], kind: Callable[[list[int]], Sequence[int]]) -> None:
    """The bytes are those that protobuf makes of the same results, however the outcomes are mixed."""
    texts = [uuid7(NOW_MS, seed) for seed in range(len(codes))]
    texts[0] = texts[0].upper()
    expected = wallet_pb2.BatchTransferResponse()
    for text, code in zip(texts, codes, strict=True):
        if code == COMMITTED:
            expected.results.add(transaction_id=text, outcome=outcome_pb2.OUTCOME_COMMITTED)
        else:
            why = refusal(code)
            expected.results.add(transaction_id=text, outcome=why.outcome, refusal=why)
    told = answer(texts, kind(codes))
    assert wallet_pb2.BatchTransferResponse.FromString(told) == expected
    assert told == expected.SerializeToString()


@given(st.lists(st.sampled_from([COMMITTED, *REFUSED]), min_size=1, max_size=6))
def test_any_outcomes(codes: list[int]) -> None:
    """Each result has its own id and its own outcome."""
    texts = [uuid7(NOW_MS, seed) for seed in range(len(codes))]
    told = wallet_pb2.BatchTransferResponse.FromString(answer(texts, bytearray(codes)))
    assert [result.transaction_id for result in told.results] == texts
    for result, code in zip(told.results, codes, strict=True):
        if code == COMMITTED:
            assert result == wallet_pb2.TransferResponse(
                transaction_id=result.transaction_id, outcome=outcome_pb2.OUTCOME_COMMITTED
            )
        else:
            assert (result.refusal, result.outcome) == (refusal(code), refusal(code).outcome)


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
