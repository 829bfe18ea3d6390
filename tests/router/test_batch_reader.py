"""The hot loop over a batch agrees with the careful one: what it takes it packs alike, all else it leaves.

Whatever is asked, and in whatever form a message has it, is read by both. Then faults are planted in the hot
loop, each of which must be found.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from router.requests import batch_reader
from router.requests.batch_reader import LEAST_BYTES, BatchReader
from shard_node.limits import MAX_BATCH
from tests.router.batch_agreement import agree, agree_on
from tests.router.batch_samples import (
    SETTINGS,
    UNUSUAL,
    BatchRequest,
    Request,
    batches_in_order,
    ordinary,
    with_field,
)
from tests.router.samples import ID, NOW_MS, reader, uuid7


@SETTINGS
@given(requests=batches_in_order(), data=st.data())
def test_what_is_in_order_is_packed_alike(requests: list[Request], data: st.DataObject) -> None:
    """Any such batch is taken, and any of its rows make the same bundles."""
    rows = data.draw(st.lists(st.sampled_from(range(len(requests))), min_size=1, unique=True))
    request = BatchRequest(transfers=requests, return_balances=data.draw(st.booleans()))
    assert agree_on(request.SerializeToString(), rows)


@SETTINGS
@given(
    requests=batches_in_order(),
    data=st.data(),
    unusual=st.sampled_from(UNUSUAL).map(lambda one: one[:2])
    | st.tuples(
        st.sampled_from(["transaction_id", "from_account", "to_account", "amount", "currency", "reference"]),
        st.text(st.characters(codec="utf-8"), max_size=70) | st.text("0123456789abcdef-., \n", max_size=36),
    ),
)
def test_anything_in_one_field(
    requests: list[Request], data: st.DataObject, unusual: tuple[str, Any]
) -> None:
    """Whatever one field of one row holds, the batch is left alone or packed alike."""
    row = data.draw(st.sampled_from(range(len(requests))))
    requests[row] = with_field(requests[row], *unusual)
    agree(requests)


@pytest.mark.parametrize(("field", "value", "is_taken"), UNUSUAL, ids=lambda value: ascii(value)[:40])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_one_unusual_field(field: str, value: object, is_taken: bool, row: int) -> None:  # noqa: FBT001
    """What is read differently from case to case is left to the careful loop, wherever it stands."""
    requests = [ordinary(n) for n in (1, 2, 3)]
    requests[row] = with_field(requests[row], field, value)
    assert agree(requests) == is_taken


@SETTINGS
@given(batches=st.lists(batches_in_order(4), min_size=2, max_size=4), seed=st.randoms())
def test_several_currencies(batches: list[list[Request]], seed: Random) -> None:
    """Batches of several currencies are taken, wherever the rows of each stand."""
    requests = [request for batch in batches for request in batch]
    seed.shuffle(requests)
    assert agree(requests)


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
    assert not agree([one, with_field(one, "amount", "9" * 16 + amount[1:])])


def test_a_spelling_does_not_hide_another() -> None:
    """An id that is too short is not made up for by one that is too long, nor a comma by one that lacks."""
    short, long = with_field(ordinary(1), "transaction_id", ID[:-1]), ordinary(2)
    long = with_field(long, "transaction_id", ID + "0")
    assert not agree([short, long])
    assert not agree(
        [with_field(ordinary(1), "from_account", "a,b"), with_field(ordinary(2), "from_account", "")]
    )
    assert not agree([with_field(ordinary(1), "amount", "1.00,2.00"), with_field(ordinary(2), "amount", "")])


@pytest.mark.parametrize("count", [100, 1000])
def test_many(count: int) -> None:
    """Rows keep their order within a part, and one odd row, wherever it is, is as one of three."""
    requests = [ordinary(n) for n in range(1, count + 1)]
    assert agree(requests, range(count - 1, -1, -7))
    timeless = [*requests[:-1], with_field(requests[-1], "transaction_id", ID)]
    assert agree(timeless)
    for field, value in (
        ("amount", "1"),
        ("currency", "XXX"),
        ("to_account", "alice"),
        ("reference", "x" * 257),
    ):
        assert not agree([*requests[:-1], with_field(requests[-1], field, value)])


def test_garbage_is_left() -> None:
    """Bytes that could be millions of rows, empty or not, are none."""
    read = reader()
    for garbage in (b"\n\0", b"\n$", b"\n&\n$"):
        assert BatchReader(read.exponents).read(garbage * 100_000, read.latest_id()) is None


@pytest.mark.parametrize(("count", "is_taken"), [(MAX_BATCH, True), (MAX_BATCH + 1, False)])
def test_the_largest_batch(count: int, is_taken: bool) -> None:  # noqa: FBT001
    """One more is not taken: the service counts again, and refuses it."""
    request = BatchRequest(transfers=[ordinary(n) for n in range(1, count + 1)]).SerializeToString()
    read = reader()
    assert (BatchReader(read.exponents).read(request, read.latest_id()) is not None) == is_taken


def test_short_requests_are_left() -> None:
    """What is read sooner row by row is read so."""
    request = BatchRequest(transfers=[ordinary()]).SerializeToString()
    longer = request * (LEAST_BYTES // len(request) + 1)
    read = reader()
    hot = BatchReader(read.exponents)
    assert hot.read(longer, read.latest_id()) is not None
    assert hot.read(longer[: -len(request)], read.latest_id()) is None


# ---------------------------------------------------------------- the wire


def varint(value: int, least_bytes: int = 1) -> bytes:
    """A number as the wire has it; with ``least_bytes`` in more bytes than it needs."""
    encoded = bytearray()
    while value > 0x7F or len(encoded) + 1 < least_bytes:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def field(number: int, content: bytes, tag_bytes: int = 1, length_bytes: int = 1) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2, tag_bytes) + varint(len(content), length_bytes) + content


# The fields of an ordinary transfer, with a reference.
FIELDS = [uuid7(NOW_MS - 1).encode(), b"alice", b"bob", b"1.50", b"EUR", b"thanks"]
PLAIN = [field(number, content) for number, content in enumerate(FIELDS, 1)]
ROW = field(1, b"".join(PLAIN[:5]))


def with_part(number: int, *instead: bytes) -> bytes:
    """A row in which something else stands in the place of a field."""
    return field(1, b"".join([*PLAIN[: number - 1], *instead, *PLAIN[number:]]))


# What serializers write behind all rows, and the hot loop takes there alone.
RETURN_BALANCES = b"\x10\x01"
# A row of more than 127 bytes, without its head.
LONG = with_part(6, field(6, b"x" * 100))[3:]
# Each a row, or what may stand between two, and whether it is taken between two ordinary ones.
FORMS: dict[str, tuple[bytes, bool]] = {
    "ordinary": (ROW, True),
    "with a reference": (with_part(6, PLAIN[5]), True),
    "nothing": (b"", True),
    "a length of two bytes": (field(1, b"".join(PLAIN[:5]), length_bytes=2), True),
    "a length of three bytes": (field(1, b"".join(PLAIN[:5]), length_bytes=3), False),
    "a length of two bytes, needed": (with_part(6, field(6, b"x" * 100)), True),
    "a length of two bytes in one": (b"\n" + bytes((len(LONG),)) + LONG, False),
    "a reference's length of two bytes": (with_part(6, field(6, b"thanks", length_bytes=2)), True),
    "a reference's length of three bytes": (with_part(6, field(6, b"thanks", length_bytes=3)), False),
    "the longest reference": (with_part(6, field(6, b"x" * 256)), True),
    "a reference too long": (with_part(6, field(6, b"x" * 257)), False),
    "a reference far too long": (with_part(6, field(6, b"x" * 20_000)), False),
    "an empty reference": (with_part(6, field(6, b"")), True),
    "a reference that is no UTF-8": (with_part(6, field(6, b"\xc3")), False),
    "a reference with a surrogate": (with_part(6, field(6, b"\xed\xa0\x80")), False),
    "a reference like rows": (with_part(6, field(6, ROW + ROW)), False),
    "a reference with the head of an id": (with_part(6, field(6, b"pay\n$5")), False),
    "an account with the head of an id": (with_part(2, field(2, b"pay\n$5")), False),
    "a row of nothing": (field(1, b""), False),
    "backwards": (field(1, b"".join(PLAIN[4::-1])), False),
    "balances wanted": (RETURN_BALANCES, False),
    "balances not wanted": (b"\x10\x00", False),
    "unknown beside rows": (field(15, b"".join(PLAIN)), False),
    "a tag of two bytes": (field(1, b"".join(PLAIN[:5]), tag_bytes=2), False),
    "a row that is a number": (b"\x08\x05", False),
    "a row that is a group": (b"\x0b" + PLAIN[0] + b"\x0c", False),
    "checked only": (with_part(6, b"\x38\x01"), False),
    "not checked only": (with_part(6, b"\x38\x00"), False),
    "checked only, with a reference": (with_part(6, PLAIN[5], b"\x38\x01"), False),
    "with a version": (with_part(6, b"\x40\x05"), False),
    "a version of zero": (with_part(6, b"\x40\x00"), False),
    "a version behind a reference": (with_part(6, PLAIN[5], b"\x40\x05"), False),
    "unknown behind a reference": (with_part(6, PLAIN[5], b"\x78\x05"), False),
    "cut in a reference": (with_part(6, PLAIN[5])[:-1], False),
    "unknown number": (with_part(6, b"\x78\x05"), False),
    "unknown text": (with_part(6, field(15, b"x")), False),
    "unknown group": (with_part(6, b"\x7b\x7c"), False),
    "unknown fixed": (with_part(6, b"\x7d1234"), False),
    "an end of a group": (with_part(6, b"\x7c"), False),
    "cut in a row": (ROW[:-1], False),
    "a row too long": (varint(0x0A) + varint(len(ROW) - 1) + ROW[2:], False),
    "a row too short": (varint(0x0A) + varint(len(ROW) - 3) + ROW[2:], False),
    **{f"{n} twice": (with_part(n, field(n, b"1"), PLAIN[n - 1]), False) for n in range(1, 7)},
    **{f"{n} left out": (with_part(n), n == 6) for n in range(1, 7)},
    **{f"{n} empty": (with_part(n, field(n, b"")), n == 6) for n in range(1, 7)},
    **{f"{n} a number": (with_part(n, varint(n << 3) + b"\x05"), False) for n in range(1, 7)},
    **{f"{n} a tag of two bytes": (with_part(n, field(n, FIELDS[n - 1], 2)), False) for n in range(1, 7)},
    **{
        f"{n} a length of two bytes": (with_part(n, field(n, FIELDS[n - 1], length_bytes=2)), n == 6)
        for n in range(1, 7)
    },
    **{f"{n} too long": (with_part(n, field(n, FIELDS[n - 1] * 40)), n == 6) for n in range(1, 7)},
    **{
        f"{n} no ASCII": (with_part(n, field(n, FIELDS[n - 1][:-2] + b"\xc3\xa9")), n == 6)
        for n in range(1, 7)
    },
    **{f"{n} no UTF-8": (with_part(n, field(n, FIELDS[n - 1][:-1] + b"\xff")), False) for n in range(1, 7)},
    **{f"{n + 1} as {n}": (with_part(n, field(n + 1, FIELDS[n - 1])), False) for n in range(1, 6)},
}


def between(form: str) -> bytes:
    """That form between two ordinary rows."""
    return ROW + FORMS[form][0] + ROW


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["alone", "first", "between", "last"])
def test_forms_of_a_message(form: str, place: str) -> None:
    """A message that is not as serializers write it is left alone, unless nothing else could be read."""
    one, is_taken = FORMS[form]
    raw = {"alone": one, "first": one + ROW, "between": between(form), "last": ROW + one}[place]
    is_taken |= place == "last" and one == RETURN_BALANCES
    assert agree_on(raw) == (is_taken and bool(raw))


def test_a_reference_cannot_end_in_the_next() -> None:
    """Texts that are UTF-8 only together are none."""
    halves = [with_part(6, field(6, half)) for half in (b"\xc3", b"\xa9")]
    assert not agree_on(b"".join(halves))
    with pytest.raises(DecodeError):
        BatchRequest.FromString(b"".join(halves))


@SETTINGS
@given(
    pieces=st.lists(st.sampled_from([ROW, *(one for one, _ in FORMS.values())]), max_size=5), data=st.data()
)
def test_any_forms_together(pieces: list[bytes], data: st.DataObject) -> None:
    """Whatever stands beside what, cut wherever, is left alone or packed alike."""
    raw = b"".join(pieces)
    agree_on(raw)
    agree_on(raw[: data.draw(st.integers(0, len(raw)))])
    first, last = sorted(data.draw(st.tuples(st.integers(0, len(raw)), st.integers(0, len(raw)))))
    agree_on(raw[:first] + data.draw(st.binary(max_size=4)) + raw[last:])


BYTES = (0x00, 0x0A, 0x12, 0x24, 0x2E, 0x30, 0x7F, 0x80, 0xFF)


@pytest.mark.large
def test_every_byte() -> None:
    """Whichever byte is changed, lost or added, the batch is left alone or packed alike."""
    raw = between("with a reference")[len(ROW) :]
    for at in range(len(raw)):
        before, after = raw[:at], raw[at + 1 :]
        agree_on(before)
        agree_on(before + after)
        near = [(raw[at] + step) % 256 for step in (-1, 1)]
        for other in (*BYTES, *near):
            agree_on(before + bytes((other,)) + after)
            agree_on(before + bytes((other,)) + raw[at:])


# ---------------------------------------------------------------- planted faults


class Fault(NamedTuple):
    """What is wrong, and the text of the module that is replaced to make it so."""

    what: str
    text: str
    instead: str
    module: str = "router.requests.batch_reader"


MODULES = (
    "router.requests.text_tables",
    "router.requests.transfer_columns",
    "router.requests.batch_reader",
)
TABLES, COLUMNS = MODULES[:2]
FAULTS = [
    Fault("tags", "_require(head & 0xFF == tag)", ""),
    Fault("rows' tags", "_require(octets[starts] == _TRANSFERS)", ""),
    Fault("lengths of two bytes", "(first << 7)", "(first << 8)"),
    Fault("lengths of three bytes", "(first < _MORE) & ", ""),
    Fault("what is before the first row", "starts[0] != begin or ", ""),
    Fault("what is behind the last row", 'behind not in (b"", _RETURN_BALANCES)', "False"),
    Fault("what is between rows", "_require(ends[:-1] == starts[1:])", ""),
    Fault("a currency's length", "_require(begin(amount_ends, _CURRENCY) == _CURRENCY_CHARS)", ""),
    Fault("empty fields", "int(lengths.min()) < 1 or ", ""),
    Fault(
        "65 characters", "(payee_lengths, MAX_ACCOUNT_ID_CHARS)", "(payee_lengths, MAX_ACCOUNT_ID_CHARS + 1)"
    ),
    Fault("a reference's tag", "_require(octets[at] == _REFERENCE)", ""),
    Fault("what is behind a reference", "at + 2 + is_long + told == ends[there]", "told >= 0"),
    Fault("long references", "told <= MAX_REFERENCE_BYTES", "told >= 0"),
    Fault("a reference's length", "first - _MORE + (second << 7)", "first - _MORE"),
    Fault("UTF-8", "text.decode()", ""),
    Fault("texts that end in the next", "_require(octets[starts] & 0xC0 != 0x80)", ""),
    Fault("several currencies", "if not np.count_nonzero(currencies != currencies[0]):", "if True:"),
    Fault("amounts of other currencies", "minor[rows], ", "minor[:], "),
    Fault("balances that nobody wants", "ids, ends, bool(behind)", "ids, ends, True"),
    Fault("balances that are wanted", "ids, ends, bool(behind)", "ids, ends, False"),
    Fault("an account with itself", "_check_pairs(accounts, slots, count)", ""),
    Fault("dashes anywhere", "for dash in _DASHES:", "for dash in ():"),
    Fault("a NUL in a reference", 'if b"\\0" in text:', "if False:"),
    Fault("the nil id", "_require((halves[:, 0] | halves[:, 1]) != 0)", ""),
    Fault("ids of the future", "> latest_ms:", "> latest_ms + 1:"),
    Fault("ids of no time", "high >> 12 & 0xF", "high >> 12 & 0x3"),
    Fault("spaces in an account id", '_NAME_BYTES = b"', '_NAME_BYTES = b" '),
    Fault("zeros in an account id", "!= bytes(len(octets) - int(lengths.sum()))", '.strip(b"\\0")'),
    Fault("system accounts", '_require(np.frombuffer(data, np.uint8)[ends - lengths] != ord("@"))', ""),
    Fault("hash tags", 'if b"{" not in octets:', "if octets:"),
    Fault("empty hash tags", "closings > openings + 1", "closings > openings"),
    Fault("braces that another closes", "(closings // width == rows) & ", ""),
    Fault("the second brace", "openings[1:] // width != openings[:-1] // width", "True"),
    Fault("what is behind a hash tag", "ends - behind", "ends"),
    Fault("checksums", "bytes(behind), 0)", "bytes(behind), 1)"),
    Fault("other characters in an amount", "_require(numbers <= 9)", ""),
    Fault("missing decimals", '_require(table[:, -decimals] == ord("."))', ""),
    Fault("nothing before the point", "<= decimals or", "< decimals or"),
    Fault("sixteen digits", "_MAX_DIGITS + bool(digits)", "_MAX_DIGITS + 1"),
    Fault("zero", "_require(values > 0)", ""),
    Fault("what pads amounts", ', padding=ord("0")', ""),
    Fault("what is in front of a text", "table &= mask", "pass", TABLES),
    Fault("padding left in", "self.table[self.table != 0]", "self.table", TABLES),
    Fault("the kind", "Kind.TRANSFER", "Kind.DEPOSIT", COLUMNS),
    Fault("a reference without its head", "- head, lengths)", "- head + 1, lengths)", COLUMNS),
    Fault("the head of a reference", "details[heads + place] = byte", "pass", COLUMNS),
    Fault("the head of no reference", "lengths += head * has_any", "lengths += head", COLUMNS),
    Fault(
        "payers' lengths", "name_lengths[first:last]", "name_lengths[count + first : count + last]", COLUMNS
    ),
    Fault("payees' shards", "self.slots[order + count]", "self.slots[order]", COLUMNS),
    Fault(
        "rows that are not sorted", "order, pairs = order[by_pair], pairs[by_pair]", "pairs.sort()", COLUMNS
    ),
    Fault("ids that are not sorted", "self.ids[order]", "self.ids[: len(order)]", COLUMNS),
    Fault("currencies that are not sorted", "ordered = currencies[order]", "ordered = currencies", COLUMNS),
    Fault("one currency of several", "if (part != part[0]).any() else", "if False else", COLUMNS),
    Fault("payees' balances", "rows + len(self)", "rows + len(rows)", COLUMNS),
    Fault("balances within a shard", "else (np.concatenate((payers, payees)),)", "else (payers,)", COLUMNS),
    Fault("the principal", "            len(principal),", "            0,", COLUMNS),
]


def corpus() -> Iterator[tuple[bytes, bool | None]]:
    """Batches in which one thing is unusual; whether they are taken, where it is known."""
    plain = [ordinary(n) for n in (1, 2, 3)]
    tags = [
        with_field(with_field(plain[0], "from_account", "{a}"), "to_account", to) for to in ("xx}y", "{b}c")
    ]
    yen = [
        with_field(with_field(plain[0], "currency", "JPY"), "amount", amount) for amount in ("5", "9" * 16)
    ]
    for requests, is_taken in (
        (plain, True),
        (tags, True),
        (yen[:1], True),
        (yen, False),
        ([*plain, yen[0]], True),
        ([plain[0], yen[0]], True),
    ):
        yield BatchRequest(transfers=requests).SerializeToString(), is_taken
    for field_, value, is_taken in UNUSUAL:
        requests = [plain[0], with_field(plain[1], field_, value), plain[2]]
        yield BatchRequest(transfers=requests).SerializeToString(), is_taken
    for form, (one, is_taken) in FORMS.items():
        yield between(form), is_taken
        yield ROW + one, is_taken or one == RETURN_BALANCES
    yield b"".join(with_part(6, field(6, half)) for half in (b"\xc3", b"\xa9")), False
    yield between("with a reference") + RETURN_BALANCES, True
    raw = with_part(6, PLAIN[5]) + ROW
    for at in range(len(raw)):
        for step in (-1, 1):
            yield raw[:at] + bytes(((raw[at] + step) % 256,)) + raw[at + 1 :], None


CORPUS = list(corpus())


def differs(module: Any = batch_reader) -> bool:
    """Whether the two loops differ over some batch of the corpus."""
    for raw, is_taken in CORPUS:
        try:
            taken = agree_on(raw, module=module)
        # A fault may also make the hot loop itself fail, where it should have left the batch alone; and what
        # it takes may be no message.
        except (AssertionError, IndexError, DecodeError):
            return True
        if is_taken is not None and taken != is_taken:
            return True
    return False


@pytest.mark.large
def test_no_difference_without_a_fault() -> None:
    """What the faults are measured against."""
    assert not differs()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_faults_are_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hot loop that lets through or packs what it should not differs over some batch."""
    for name in MODULES:
        source = Path(importlib.import_module(name).__file__ or "").read_text(encoding="utf-8")
        if name == fault.module:
            assert source.count(fault.text) == 1
            source = source.replace(fault.text, fault.instead)
        module = ModuleType(name)
        # Those that follow import this one.
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102 -- the project's own source
    assert differs(sys.modules[MODULES[-1]])
