"""Amounts, currencies, references, credit lines, and requests as a whole."""

# ruff: noqa: RUF001 -- characters that only look right are what some of these tests are about

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from router.requests.reader import columns
from shard_node.contract.transfers import (
    Details,
    Kind,
    Row,
    Terms,
    Transfers,
    transfer_key,
    unpack_body,
    unpack_details,
)

from router.requests.fields import BadField, minimum_balance
from shard_node.cluster.slots import slot
from shard_node.limits import MAX_MINOR, MAX_REFERENCE_BYTES
from tallystick.v1 import wallet_pb2
from tests.exponents import EXPONENTS
from tests.router.samples import FIELDS, ID, Asked, attempt, reader, uuid7


def _length(text: str) -> str:
    return f"{text[:1]!a} of {len(text)}"


def world_transfer(kind: Kind, **fields: Any) -> Row:
    """A deposit or withdrawal, read; of one euro of alice's unless the fields say otherwise."""
    fields = {"transaction_id": ID, "account_id": "alice", "amount": "1", "currency": "EUR"} | fields
    if kind is Kind.DEPOSIT:
        return reader().deposit(wallet_pb2.DepositRequest(**fields))
    return reader().withdrawal(wallet_pb2.WithdrawRequest(**fields))


NO_CURRENCIES = [
    *("", "eur", "Eur", "EURO", "EU", "E", "EUR ", " EUR", "EUR\n", "978", "€", "ＥＵＲ", "ΕUR", "EUR" * 100),
    *("ZZZ", "DEM"),
    # ISO 4217 has these, but gives them no minor units.
    *("XAU", "XAG", "XXX", "XTS", "XDR"),
]


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("0.01", "EUR", 1),
        ("12.5", "EUR", 1250),
        ("12", "EUR", 1200),
        ("1", "JPY", 1),
        ("0.001", "BHD", 1),
        ("0.0001", "CLF", 1),
        ("90071992547409.91", "EUR", MAX_MINOR),
        ("9007199254740991", "JPY", MAX_MINOR),
        ("9007199254740.991", "BHD", MAX_MINOR),
    ],
)
def test_amount(amount: str, currency: str, minor: int) -> None:
    """An amount becomes minor units of its currency, up to 2^53 - 1 of them."""
    row = reader().transfer(Asked(amount=amount, currency=currency))
    assert (row[3], row[4]) == (minor, currency)


@pytest.mark.parametrize(
    ("amount", "currency", "why"),
    [
        ("", "EUR", "must be digits"),
        ("0", "EUR", "above zero"),
        ("0.00", "EUR", "above zero"),
        ("000", "JPY", "above zero"),
        ("-1", "EUR", "must be digits"),
        ("-0", "EUR", "must be digits"),
        ("+1", "EUR", "must be digits"),
        ("1e3", "EUR", "must be digits"),
        ("NaN", "EUR", "must be digits"),
        ("Infinity", "EUR", "must be digits"),
        ("1.", "EUR", "must be digits"),
        (".5", "EUR", "must be digits"),
        (" 1", "EUR", "must be digits"),
        ("1 ", "EUR", "must be digits"),
        ("1,000", "EUR", "must be digits"),
        ("1.000,00", "EUR", "must be digits"),
        ("١", "EUR", "must be digits"),
        ("1²", "EUR", "must be digits"),
        ("1.0", "JPY", "has 1 decimals, the currency has 0"),
        ("1.001", "EUR", "has 3 decimals, the currency has 2"),
        ("1.0000", "BHD", "has 4 decimals, the currency has 3"),
        ("90071992547409.92", "EUR", "above the largest amount, 90071992547409.91"),
        ("9007199254740992", "JPY", "above the largest amount, 9007199254740991"),
        ("1" + "0" * 30, "EUR", "above the largest amount"),
        ("9" * 10_000, "JPY", "above the largest amount"),
    ],
)
def test_not_an_amount(amount: str, currency: str, why: str) -> None:
    """An amount that is none, is not above zero, too fine or too large names its field and the limit."""
    refused = attempt(lambda: reader().transfer(Asked(amount=amount, currency=currency)))
    assert isinstance(refused, BadField)
    assert refused.field == "amount"
    assert why in refused.message
    assert len(refused.message) < 200
    for kind in (Kind.DEPOSIT, Kind.WITHDRAWAL):
        with pytest.raises(BadField) as alike:
            world_transfer(kind, amount=amount, currency=currency)
        assert alike.value == refused


@pytest.mark.parametrize("currency", NO_CURRENCIES)
def test_not_a_currency(currency: str) -> None:
    """Only codes of ISO 4217 with minor units are currencies, for transfers and accounts alike."""
    with pytest.raises(BadField, match="must be an ISO 4217 code") as transfer:
        reader().transfer(Asked(currency=currency))
    with pytest.raises(BadField, match="must be an ISO 4217 code") as account:
        reader().account(wallet_pb2.OpenAccountRequest(account_id="alice", currency=currency))
    assert str(transfer.value) == str(account.value)
    assert transfer.value.field == account.value.field == "currency"


@pytest.mark.parametrize(
    "reference", ["", "x", "x" * 256, "é" * 128, "€" * 85 + "x", "😀" * 64, "a\x01b\n"], ids=_length
)
def test_reference(reference: str) -> None:
    """A reference is any text of up to 256 bytes of UTF-8, kept as it is."""
    row = reader().transfer(Asked(reference=reference))
    assert unpack_body(row[5]).details.decode() == reference


@pytest.mark.parametrize(
    "reference", ["x" * 257, "é" * 128 + "x", "€" * 86, "😀" * 64 + "x", "x" * 100_000], ids=_length
)
def test_too_long_a_reference(reference: str) -> None:
    """Bytes count, not characters; the refusal says how many there are."""
    why = BadField("reference", f"must be at most 256 bytes of UTF-8, has {len(reference.encode())}")
    assert attempt(lambda: reader().transfer(Asked(reference=reference))) == why
    assert attempt(lambda: world_transfer(Kind.DEPOSIT, reference=reference)) == why


@pytest.mark.parametrize(
    ("text", "currency", "floor_minor"),
    [
        ("0", "EUR", 0),
        ("0.00", "EUR", 0),
        ("-0", "EUR", 0),
        ("-0.01", "EUR", -1),
        ("-100", "EUR", -10_000),
        ("-100", "JPY", -100),
        ("-0.001", "BHD", -1),
        ("-90071992547409.90", "EUR", -(MAX_MINOR - 1)),
    ],
)
def test_minimum_balance(text: str, currency: str, floor_minor: int) -> None:
    """A floor is zero or a credit line, down to one above the floor of the system's own accounts."""
    assert minimum_balance(text, EXPONENTS[currency]) == floor_minor


@pytest.mark.parametrize(
    ("text", "currency", "why"),
    [
        ("", "EUR", "must be digits"),
        ("1", "EUR", 'must be "0" or negative'),
        ("0.01", "EUR", 'must be "0" or negative'),
        ("--1", "EUR", "must be digits"),
        ("+0", "EUR", "must be digits"),
        ("-", "EUR", "must be digits"),
        ("- 1", "EUR", "must be digits"),
        ("−1", "EUR", "must be digits"),
        ("-1e3", "EUR", "must be digits"),
        ("-NaN", "EUR", "must be digits"),
        ("-1.", "EUR", "must be digits"),
        ("-.5", "EUR", "must be digits"),
        ("-1.0", "JPY", "the currency has 0"),
        ("-1.001", "EUR", "the currency has 2"),
        ("-90071992547409.91", "EUR", "the system accounts' own"),
        ("-90071992547409.92", "EUR", "above the largest amount"),
        ("-1" + "0" * 30, "EUR", "above the largest amount"),
    ],
)
def test_not_a_minimum_balance(text: str, currency: str, why: str) -> None:
    """A floor above zero, ill-formed or out of range names its field."""
    with pytest.raises(BadField) as refused:
        minimum_balance(text, EXPONENTS[currency])
    assert refused.value.field == "minimum_balance"
    assert why in refused.value.message


def test_row_holds_the_terms() -> None:
    """A row is the request's terms: columns, packed body and key agree."""
    key, payer, payee, minor, currency, body, payer_slot, payee_slot = reader().transfer(Asked())
    assert unpack_body(body) == Terms(
        1250, "EUR", slot("alice"), slot("bob"), Kind.TRANSFER, "alice", "bob", b"invoice 7"
    )
    assert (payer, payee, minor, currency) == ("alice", "bob", 1250, "EUR")
    assert (payer_slot, payee_slot) == (slot("alice"), slot("bob"))
    assert key == transfer_key(reader().transaction_id(ID), body)


@pytest.mark.parametrize(
    ("kind", "payer", "payee"),
    [(Kind.DEPOSIT, "@world:EUR", "alice"), (Kind.WITHDRAWAL, "alice", "@world:EUR")],
)
def test_world_transfers_stay_on_the_accounts_shard(kind: Kind, payer: str, payee: str) -> None:
    """A deposit or withdrawal has both legs in the account's slot, so it never crosses shards."""
    row = world_transfer(
        kind, amount="12.50", reference="cash", bank_transaction_id="b-7", initiated_by="teller"
    )
    assert row[1:3] == (payer, payee)
    assert row[6] == row[7] == slot("alice")
    terms = unpack_body(row[5])
    assert (terms.kind, terms.amount_minor) == (kind, 1250)
    assert unpack_details(terms.details) == Details(b"b-7", b"teller", b"cash")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("transaction_id", uuid7(0)),
        ("from_account", "carol"),
        ("to_account", "carol"),
        ("amount", "12.51"),
        ("currency", "USD"),
        ("reference", "invoice 8"),
    ],
)
def test_every_field_is_in_the_fingerprint(field: str, value: str) -> None:
    """A retry that differs in any field has another key, so it is not taken for the same transfer."""
    other = Asked()
    setattr(other, field, value)
    assert reader().transfer(other)[0] != reader().transfer(Asked())[0]


def test_the_same_terms_in_another_spelling() -> None:
    """A retry that writes the same amount or id in other characters is the same transfer."""
    other = Asked(transaction_id=ID.upper(), amount="0012.5")
    assert reader().transfer(other) == reader().transfer(Asked())


def test_bad_items_leave_the_others_alone() -> None:
    """Rows keep the order of what fits; each bad item is named by its position."""
    requests = [Asked(reference=str(n)) for n in range(6)]
    requests[0].amount = "0"
    requests[3].currency = "ZZZ"
    requests[5].to_account = "alice"
    batch, bad, _ = reader().transfers(requests)
    assert [unpack_body(body).details for body in batch.bodies] == [b"1", b"2", b"4"]
    assert {position: b.field for position, b in bad.items()} == {
        0: "amount",
        3: "currency",
        5: "to_account",
    }


def test_the_first_bad_field_is_named() -> None:
    """With several bad fields the one that comes first in the message is told."""
    asked = Asked("", "", "", "", "", "x" * 300)
    good = Asked()
    for field in ("transaction_id", "from_account", "to_account"):
        assert reader().transfers([asked])[1][0].field == field
        setattr(asked, field, getattr(good, field))
    # Whether an amount fits depends on its currency, which is therefore looked at before it.
    for field in ("currency", "amount", "reference"):
        assert reader().transfers([asked])[1][0].field == field
        setattr(asked, field, getattr(good, field))
    assert reader().transfer(asked)


GOOD = {field: getattr(Asked(), field) for field in FIELDS}
# Text as a message can hold it: protobuf takes no lone surrogates.
ANY = st.text(st.characters(codec="utf-8"))


@given(st.fixed_dictionaries({field: st.just(good) | ANY for field, good in GOOD.items()}))
def test_any_text_in_any_field(fields: dict[str, str]) -> None:
    """Whatever the fields hold, a request is a row or one BadField, never any other error."""
    asked = Asked(**cast("dict[str, Any]", fields))
    batch, bad, _ = reader().transfers([asked, Asked()])
    assert len(batch) + len(bad) == 2
    assert set(bad) <= {0}
    if bad:
        assert bad[0].field in FIELDS
        assert str(bad[0]) == f"{bad[0].field}: {bad[0].message}"
    else:
        assert unpack_body(batch.bodies[0]).details.decode() == asked.reference


@given(
    kind=st.sampled_from([Kind.DEPOSIT, Kind.WITHDRAWAL]),
    transaction_id=st.just(GOOD["transaction_id"]) | ANY,
    account_id=st.just("alice") | ANY,
    amount=st.just("1") | ANY,
    currency=st.just("EUR") | ANY,
    reference=ANY,
)
def test_any_text_in_a_deposit(
    kind: Kind, transaction_id: str, account_id: str, amount: str, currency: str, reference: str
) -> None:
    """Deposits and withdrawals raise nothing but BadField either, by their own field names."""
    read = attempt(
        lambda: world_transfer(
            kind,
            transaction_id=transaction_id,
            account_id=account_id,
            amount=amount,
            currency=currency,
            reference=reference,
        )
    )
    if isinstance(read, BadField):
        assert read.field in {"transaction_id", "account_id", "amount", "currency", "reference"}
    else:
        assert len(reference.encode()) <= MAX_REFERENCE_BYTES
        assert "\0" not in reference
        assert account_id in read[1:3]


@given(text=ANY | st.from_regex(r"-?[0-9]{1,18}(\.[0-9]{1,3})?", fullmatch=True))
def test_any_text_as_a_minimum_balance(text: str) -> None:
    """Whatever the text, it is a floor within bounds or a BadField."""
    floor = attempt(lambda: minimum_balance(text, 2))
    if isinstance(floor, BadField):
        assert floor.field == "minimum_balance"
    else:
        assert -MAX_MINOR < floor <= 0


@given(
    st.lists(
        st.builds(
            lambda n, r: (n, r),
            st.integers(1, 10**6),
            st.text(st.characters(codec="utf-8", min_codepoint=1), max_size=60),
        ),
        max_size=5,
    )
)
def test_batch_is_what_packing_one_by_one_gives(asked: list[tuple[int, str]]) -> None:
    """The hot loop spells packing out; it must stay the same as the functions that say it plainly."""
    requests = [Asked(amount=f"{n}.00", reference=reference) for n, reference in asked]
    batch, bad, _ = reader().transfers(requests)
    assert not bad
    terms = [
        Terms(n * 100, "EUR", slot("alice"), slot("bob"), Kind.TRANSFER, "alice", "bob", reference.encode())
        for n, reference in asked
    ]
    ids = [UUID(request.transaction_id).bytes for request in requests]
    assert batch == Transfers.of(list(zip(ids, terms, strict=True)))


def test_columns() -> None:
    """Rows become columns, each in the order of the rows; no rows, empty columns."""
    rows = [reader().transfer(replace(Asked(), reference=str(n))) for n in range(3)]
    batch = columns(rows)
    assert len(batch) == 3
    assert [unpack_body(body).details for body in batch.bodies] == [b"0", b"1", b"2"]
    assert list(batch.keys) == [row[0] for row in rows]
    assert list(batch.payee_slots) == [slot("bob")] * 3
    assert len(columns([])) == 0
    assert list(columns([]).payers) == []


def test_a_version_that_is_not_compared_is_refused() -> None:
    """A condition that this release does not check must not be taken for one that holds."""
    refused = attempt(lambda: reader().transfer(Asked(expected_version=0)))
    assert isinstance(refused, BadField)
    assert refused.field == "expected_version"
