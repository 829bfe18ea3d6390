"""Batches of transfers, ordinary and not."""

# ruff: noqa: RUF001 -- characters that only look right are what some of these values are about

from __future__ import annotations

import string
from typing import Any
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st

from router.requests.fields import MAX_CLOCK_AHEAD_MS
from tallystick.v1 import wallet_pb2
from tests.router.samples import ID, NOW_MS, uuid7

Request = wallet_pb2.TransferRequest
BatchRequest = wallet_pb2.BatchTransferRequest

SETTINGS = settings(max_examples=150, deadline=None)
DIGITS = {"EUR": 2, "JPY": 0, "BHD": 3, "CLF": 4}
LATEST_MS = NOW_MS + MAX_CLOCK_AHEAD_MS

# One field that is not as in most batches, of euros, and that the hot loop takes all the same.
TAKEN: dict[str, list[Any]] = {
    "transaction_id": [
        *(uuid7(LATEST_MS), uuid7(0), str(UUID(int=1))),
        *(ID.upper(), uuid7(NOW_MS).upper(), f"{ID[:9]}ABCD{ID[13:]}"),
        # Later than any, but for its version; and of digits alone.
        *(f"ffffffff-ffff-4{ID[15:]}", "11111111-1111-1111-1111-111111111111"),
    ],
    "from_account": [
        *("{a}:x", "{b}{a}", "{}a", "{}{a}", "}{a}", "a}{b}c}", "{{a}}", "x{a}", "{a", "a{", "}{", "{", "{}"),
        *("}", "a@b", "-", "x" * 64, "{" + "x" * 62 + "}"),
    ],
    "to_account": ["{a}:x", "Alice", "{" * 64],
    "amount": ["5.00", "05.00", "0.01", "9" * 13 + ".99", "0" * 12 + "1.00"],
    # Its amount just has as many decimals.
    "currency": ["USD"],
    "reference": ["", "a,b\n\x01", "x" * 256, "é" * 128, "€" * 85, "😀" * 64],
}
# One that it leaves to the careful loop, which may take it.
LEFT: dict[str, list[Any]] = {
    "transaction_id": [
        *(uuid7(LATEST_MS + 1), uuid7(LATEST_MS + 1).upper(), uuid7(2**48 - 1), str(UUID(int=0))),
        *("", ID[:-1], ID + "0", ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"),
        *(ID[:-1] + "g", ID[:-1] + "é", ID[:-1] + "٣", ID[:-1] + ",", "-" * 36, " " * 36),
        *(ID[:-2] + "  ", f" {ID[:-1]}", ID[:-2] + "\n\n", ID.replace("-", " ")),
        *(ID[:-2] + "--", f"{ID[:7]}-{ID[7]}{ID[9:]}", "--" + ID[2:]),
    ],
    "from_account": [
        *("", "x" * 65, "a,b", ",", "a,", "@world:EUR", "@", "é", "ａ", "a b", "a\n", "a\x00", "a/b", "bob"),
    ],
    "to_account": ["", "x" * 65, "{a}" + "x" * 62, "a,b", ",a", "@world:EUR", "éa", "\nb", "alice"],
    "amount": [
        *("5", "5.0", "5.", ".50", "", "0.00", "000.00", "1,00", "5.00,", "1,0.00", "5.000", "1.0.00"),
        *("٣.00", "3.٠٠", "-5.00", "+5.00", " 5.00", "5.00\n", "5_0.00", "1e2.00", "5.00.00"),
        *("9" * 14 + ".99", "1" + "0" * 13 + ".00", "0" * 13 + "1.00"),
        *("90071992547409.91", "90071992547409.92"),
    ],
    "currency": ["JPY", "", "eur", "EURO", "ZZZ", "XAU", "EU,"],
    "reference": ["x" * 257, "é" * 128 + "x", "€" * 86, "😀" * 65, "\x00", "a\x00b"],
    "validate_only": [True],
    "expected_version": [0, 7],
}
# Field, value, and whether it is taken.
UNUSUAL = [
    (field, value, is_taken)
    for table, is_taken in ((TAKEN, True), (LEFT, False))
    for field, values in table.items()
    for value in values
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


ACCOUNT_CHARS = string.ascii_letters + string.digits + "._:{}-"
accounts = (
    st.sampled_from(["alice", "{a}:1", "x" * 64])
    | st.text("{}a", min_size=1, max_size=9)
    | st.builds(
        str.__add__,
        st.sampled_from(ACCOUNT_CHARS),
        st.text(ACCOUNT_CHARS + "@", max_size=63),
    )
)
ids = st.one_of(
    st.builds(uuid7, st.integers(0, LATEST_MS), st.integers(0, 2**32)),
    st.uuids(version=4).map(str),
    st.uuids(version=4).map(lambda one: str(one).upper()),
)
references = st.just("") | st.text(st.characters(codec="utf-8", min_codepoint=1), max_size=64)


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
