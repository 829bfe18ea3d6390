"""Amounts, currencies, references, credit lines, and requests as a whole."""

# ruff: noqa: RUF001 -- characters that only look right are what some of these tests are about

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.requests import Opening, TransactionRequest, read_opening
from router.requests.fields import BadField, minimum_balance
from shard_node.cluster.slots import slot
from shard_node.contract import AccountTerms, Kind
from shard_node.limits import MAX_MINOR, MAX_REFERENCE_BYTES
from tallystick.v1 import wallet_pb2
from tests.details import unpack_details
from tests.exponents import EXPONENTS
from tests.router.samples import FIELDS, GOOD, ID, asked, attempt, reader, transactions, uuid7


def _length(text: str) -> str:
    return f"{text[:1]!a} of {len(text)}"


def read(**fields: Any) -> TransactionRequest:
    """A transfer of alice's, read, but for these fields."""
    return transactions().transfer(asked(**fields))


def read_world(kind: Kind, **fields: Any) -> TransactionRequest:
    """A deposit or withdrawal, read; of one euro of alice's unless the fields say otherwise."""
    fields = {"transaction_id": ID, "account_id": "alice", "amount": "1", "currency": "EUR"} | fields
    if kind is Kind.DEPOSIT:
        return transactions().deposit(wallet_pb2.DepositRequest(**fields))
    return transactions().withdrawal(wallet_pb2.WithdrawRequest(**fields))


def opening(**fields: Any) -> wallet_pb2.OpenAccountRequest:
    """A request to open alice's account of euros, but for these fields."""
    return wallet_pb2.OpenAccountRequest(**{"account_id": "alice", "currency": "EUR"} | fields)


def reference_of(request: TransactionRequest) -> str:
    """The reference that is kept of it."""
    details = request.transaction.details
    return unpack_details(details).reference.decode() if details else ""


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
    legs = read(amount=amount, currency=currency).transaction.legs
    assert [(leg.amount_minor, leg.currency) for leg in legs] == [(minor, currency)] * 2


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
    refused = attempt(lambda: read(amount=amount, currency=currency))
    assert isinstance(refused, BadField)
    assert refused.field == "amount"
    assert why in refused.message
    assert len(refused.message) < 200
    for kind in (Kind.DEPOSIT, Kind.WITHDRAWAL):
        with pytest.raises(BadField) as alike:
            read_world(kind, amount=amount, currency=currency)
        assert alike.value == refused


@pytest.mark.parametrize("currency", NO_CURRENCIES)
def test_not_a_currency(currency: str) -> None:
    """Only codes of ISO 4217 with minor units are currencies, for transfers and accounts alike."""
    with pytest.raises(BadField, match="must be an ISO 4217 code") as transfer:
        read(currency=currency)
    with pytest.raises(BadField, match="must be an ISO 4217 code") as account:
        read_opening(reader(), opening(currency=currency))
    assert str(transfer.value) == str(account.value)
    assert transfer.value.field == account.value.field == "currency"


@pytest.mark.parametrize(
    "reference", ["", "x", "x" * 256, "é" * 128, "€" * 85 + "x", "😀" * 64, "a\x01b\n"], ids=_length
)
def test_reference(reference: str) -> None:
    """A reference is any text of up to 256 bytes of UTF-8, kept as it is."""
    assert reference_of(read(reference=reference)) == reference


@pytest.mark.parametrize(
    "reference", ["x" * 257, "é" * 128 + "x", "€" * 86, "😀" * 64 + "x", "x" * 100_000], ids=_length
)
def test_too_long_a_reference(reference: str) -> None:
    """Bytes count, not characters; the refusal says how many there are."""
    why = BadField("reference", f"must be at most 256 bytes of UTF-8, has {len(reference.encode())}")
    assert attempt(lambda: read(reference=reference)) == why
    assert attempt(lambda: read_world(Kind.DEPOSIT, reference=reference)) == why


@pytest.mark.parametrize(
    ("text", "currency", "minimum_minor"),
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
def test_minimum_balance(text: str, currency: str, minimum_minor: int) -> None:
    """A minimum is zero or a credit line, down to one above the minimum of the system's own accounts."""
    assert minimum_balance(text, EXPONENTS[currency]) == minimum_minor


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
    """A minimum above zero, ill-formed or out of range names its field."""
    with pytest.raises(BadField) as refused:
        minimum_balance(text, EXPONENTS[currency])
    assert refused.value.field == "minimum_balance"
    assert why in refused.value.message


def test_opening() -> None:
    """Limits become minor units; those that are not given are none."""
    request = opening(minimum_balance="-1", maximum_balance="100", maximum_transfer="0.01")
    terms = AccountTerms("alice", slot("alice"), "EUR", -100, 10_000, 1)
    assert read_opening(reader(), request) == Opening(terms, 2)
    plain = AccountTerms("alice", slot("alice"), "EUR", 0, 0, 0)
    assert read_opening(reader(), opening()) == Opening(plain, 2)


def test_opening_in_a_new_currency() -> None:
    """A currency that nobody has an account in is read by ISO 4217."""
    read_one = read_opening(reader(), opening(currency="TND", minimum_balance="-1"))
    assert (read_one.terms.currency, read_one.terms.minimum_minor, read_one.digits) == ("TND", -1000, 3)


@pytest.mark.parametrize("field", ["maximum_balance", "maximum_transfer"])
@pytest.mark.parametrize("value", ["0", "", "-1", "1.001", "1e3"])
def test_not_a_limit(field: str, value: str) -> None:
    """A limit is an amount above zero, or not there at all."""
    refused = attempt(lambda: read_opening(reader(), opening(**{field: value})))
    assert isinstance(refused, BadField)
    assert refused.field == field


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
    """A retry that differs in any field is not taken for the same transfer."""
    one, other = (made.transaction for made in (read(), read(**{field: value})))
    assert (one.transaction_id, one.fingerprint) != (other.transaction_id, other.fingerprint)
    assert (one.transaction_id == other.transaction_id) == (field != "transaction_id")


def test_the_same_terms_in_another_spelling() -> None:
    """A retry that writes the same amount or id in other characters is the same transfer."""
    assert read(transaction_id=ID.upper(), amount="0012.5") == read()


def test_bad_items_leave_the_others_alone() -> None:
    """What fits keeps its order; each bad item is named by its position."""
    requests = [asked(reference=str(n)) for n in range(6)]
    requests[0].amount = "0"
    requests[3].currency = "ZZZ"
    requests[5].to_account = "alice"
    found = transactions().transfers(requests)
    assert [reference_of(one) for one in found.batch] == ["1", "2", "4"]
    assert {position: bad.field for position, bad in found.bad.items()} == {
        0: "amount",
        3: "currency",
        5: "to_account",
    }


def test_checked_items_are_put_aside() -> None:
    """What is only to be checked is never among what is carried out; what is wrong with it is found alike."""
    requests = [asked(reference=str(n), validate_only=n in {1, 3, 4}) for n in range(5)]
    requests[3].amount = "0"
    found = transactions().transfers(requests)
    assert [reference_of(one) for one in found.batch] == ["0", "2"]
    assert {place: bad.field for place, bad in found.bad.items()} == {3: "amount"}
    # A check is about the very transfer that the request makes without it.
    assert found.to_check == {place: read(reference=str(place)) for place in (1, 4)}


def test_the_first_bad_field_is_named() -> None:
    """With several bad fields the one that comes first in the message is told."""
    one = asked(**dict.fromkeys(FIELDS, "") | {"reference": "x" * 300})
    # Whether an amount fits depends on its currency, which is therefore looked at before it.
    for field in ("transaction_id", "from_account", "to_account", "currency", "amount", "reference"):
        assert transactions().transfers([one]).bad[0].field == field
        setattr(one, field, GOOD[field])
    assert transactions().transfer(one) == read()


# Text as a message can hold it: protobuf takes no lone surrogates.
ANY = st.text(st.characters(codec="utf-8"))


@given(st.fixed_dictionaries({field: st.just(good) | ANY for field, good in GOOD.items()}))
def test_any_text_in_any_field(fields: dict[str, str]) -> None:
    """Whatever the fields hold, a request is a transfer or one BadField, never any other error."""
    found = transactions().transfers([asked(**fields), asked()])
    assert len(found.batch) + len(found.bad) == 2
    assert set(found.bad) <= {0}
    if found.bad:
        bad = found.bad[0]
        assert bad.field in FIELDS
        assert str(bad) == f"{bad.field}: {bad.message}"
    else:
        assert reference_of(found.batch[0]) == fields["reference"]


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
    found = attempt(
        lambda: read_world(
            kind,
            transaction_id=transaction_id,
            account_id=account_id,
            amount=amount,
            currency=currency,
            reference=reference,
        )
    )
    if isinstance(found, BadField):
        assert found.field in {"transaction_id", "account_id", "amount", "currency", "reference"}
    else:
        assert len(reference.encode()) <= MAX_REFERENCE_BYTES
        assert "\0" not in reference
        assert account_id in {leg.account for leg in found.transaction.legs}


@given(text=ANY | st.from_regex(r"-?[0-9]{1,18}(\.[0-9]{1,3})?", fullmatch=True))
def test_any_text_as_a_minimum_balance(text: str) -> None:
    """Whatever the text, it is a minimum within bounds or a BadField."""
    minimum = attempt(lambda: minimum_balance(text, 2))
    if isinstance(minimum, BadField):
        assert minimum.field == "minimum_balance"
    else:
        assert -MAX_MINOR < minimum <= 0
