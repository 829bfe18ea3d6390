"""Requests of every kind: the transactions they become, and what is refused of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.requests.fields import BadField
from router.requests.transaction_reader import DEFAULT_HOLD_SECONDS
from router.requests.transactions import TransactionRequest
from shard_node.cluster.slots import slot
from shard_node.contract import NO_ID, NO_VERSION, Details, Effect, Kind, Leg, Transaction, pack_details
from shard_node.ledger.questions import Purchase
from shard_node.limits import MAX_HOLD_SECONDS, MAX_LEGS, MAX_MINOR
from tallystick.v1 import wallet_pb2
from tests.router.batch_samples import UNUSUAL, Request, batches_in_order, with_field
from tests.router.samples import ID, attempt, transactions, uuid7

OTHER = uuid7(0)
RAW, OTHER_RAW = UUID(ID).bytes, UUID(OTHER).bytes
EUR = "EUR"
NOTE = pack_details(Details(reference=b"note"))
ASKED: dict[str, Any] = {"transaction_id": ID, "amount": "12.50", "currency": EUR, "reference": "note"}
# Three accounts of one hash tag, and one that is in another slot.
TAGGED = ("{t}:a", "{t}:b", "{t}:c")


def request_of(
    kind: Kind,
    *legs: Leg,
    details: bytes = NOTE,
    related_id: bytes = NO_ID,
    bound: int = 0,
    fields: tuple[str, ...],
    places: tuple[int, ...] = (),
) -> TransactionRequest:
    """A transaction whose legs are in the slots of their accounts."""
    slots = tuple(slot(leg.account) for leg in legs)
    transaction = Transaction(RAW, kind, slots[0], legs, details, related_id, bound)
    return TransactionRequest(transaction, slots, fields, places)


def test_transfer() -> None:
    """The payer is debited and decides, the payee is credited."""
    request = wallet_pb2.TransferRequest(**ASKED, from_account="alice", to_account="bob")
    assert transactions().transfer(request) == request_of(
        Kind.TRANSFER,
        Leg("alice", Effect.DEBIT, 1250, EUR),
        Leg("bob", Effect.CREDIT, 1250, EUR),
        fields=("from_account", "to_account"),
    )


def test_no_texts_are_no_details() -> None:
    """Without a reference there are no details, and no lengths of any."""
    request = wallet_pb2.TransferRequest(**ASKED, from_account="alice", to_account="bob")
    request.reference = ""
    assert transactions().transfer(request).transaction.details == b""


@pytest.mark.parametrize("version", [0, 7, MAX_MINOR])
def test_expected_version(version: int) -> None:
    """A version is expected of the payer's account, also version 0 when it is given."""
    request = wallet_pb2.TransferRequest(
        **ASKED, from_account="alice", to_account="bob", expected_version=version
    )
    payer, payee = transactions().transfer(request).transaction.legs
    assert (payer.expected_version, payee.expected_version) == (version, NO_VERSION)


@pytest.mark.parametrize("version", [-1, -(2**63), MAX_MINOR + 1, 2**63 - 1])
def test_no_version(version: int) -> None:
    """A version below 0 would say that any will do; one that is too large would cost others their answers."""
    request = wallet_pb2.TransferRequest(
        **ASKED, from_account="alice", to_account="bob", expected_version=version
    )
    with pytest.raises(BadField, match=f"expected_version: must be 0 or more and at most .*, is {version}"):
        transactions().transfer(request)


def test_purchase() -> None:
    """A purchase is a transfer of its own kind; order_id and reference are its details."""
    request = wallet_pb2.PurchaseRequest(
        **ASKED, customer_account="alice", merchant_account="shop", order_id="order 7"
    )
    assert transactions().purchase(request) == request_of(
        Kind.PURCHASE,
        Leg("alice", Effect.DEBIT, 1250, EUR),
        Leg("shop", Effect.CREDIT, 1250, EUR),
        details=pack_details(Details(b"order 7", b"", b"note")),
        fields=("customer_account", "merchant_account"),
    )


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("order_id", "é" * 65, "order_id"),
        ("reference", "x" * 257, "reference"),
        ("merchant_account", "alice", "merchant_account"),
        ("merchant_account", "@world:EUR", "merchant_account"),
        ("customer_account", "", "customer_account"),
    ],
)
def test_not_a_purchase(field: str, value: str, wrong: str) -> None:
    """What is wrong with a purchase is named in its own words."""
    fields = ASKED | {"customer_account": "alice", "merchant_account": "shop", field: value}
    refused = attempt(lambda: transactions().purchase(wallet_pb2.PurchaseRequest(**fields)))
    assert isinstance(refused, BadField)
    assert refused.field == wrong


@pytest.mark.parametrize("kind", [Kind.DEPOSIT, Kind.WITHDRAWAL])
def test_money_from_and_to_outside(kind: Kind) -> None:
    """The system account counts to the account's slot, which is the scope of the id: one shard has both."""
    more = ASKED | {"account_id": "alice", "bank_transaction_id": "bank 7", "initiated_by": "clerk"}
    if kind is Kind.DEPOSIT:
        found = transactions().deposit(wallet_pb2.DepositRequest(**more))
        names = ("@world:EUR", "alice")
    else:
        found = transactions().withdrawal(wallet_pb2.WithdrawRequest(**more))
        names = ("alice", "@world:EUR")
    legs = (Leg(names[0], Effect.DEBIT, 1250, EUR), Leg(names[1], Effect.CREDIT, 1250, EUR))
    details = pack_details(Details(b"bank 7", b"clerk", b"note"))
    own = slot("alice")
    transaction = Transaction(RAW, kind, own, legs, details)
    assert found == TransactionRequest(transaction, (own, own), ("account_id", "account_id"))


def test_hold() -> None:
    """A hold is one leg whose bound is its life in milliseconds."""
    request = wallet_pb2.HoldRequest(**ASKED, account_id="alice", life_seconds=60)
    assert transactions().hold(request) == request_of(
        Kind.HOLD, Leg("alice", Effect.HOLD, 1250, EUR), bound=60_000, fields=("account_id",)
    )


@pytest.mark.parametrize(
    ("asked", "seconds"), [(None, DEFAULT_HOLD_SECONDS), (1, 1), (MAX_HOLD_SECONDS,) * 2]
)
def test_lives_of_holds(asked: int | None, seconds: int) -> None:
    """A hold lasts a week unless it says otherwise, a second at the least and 31 days at the most."""
    request = wallet_pb2.HoldRequest(**ASKED, account_id="alice", life_seconds=asked)
    assert transactions().hold(request).transaction.bound == seconds * 1000


@pytest.mark.parametrize("asked", [0, -1, MAX_HOLD_SECONDS + 1, -(2**63), 2**63 - 1])
def test_no_life_of_a_hold(asked: int) -> None:
    """Any other life is refused, and the limits are named."""
    refused = attempt(
        lambda: transactions().hold(wallet_pb2.HoldRequest(**ASKED, account_id="alice", life_seconds=asked))
    )
    assert isinstance(refused, BadField)
    assert (refused.field, "31 days" in refused.message) == ("life_seconds", True)


def test_capture() -> None:
    """A capture takes from the hold that it names, and pays; the holder's leg decides."""
    request = wallet_pb2.CaptureRequest(
        **ASKED, hold_transaction_id=OTHER, account_id="alice", to_account="bob"
    )
    assert transactions().capture(request) == request_of(
        Kind.CAPTURE,
        Leg("alice", Effect.CAPTURE, 1250, EUR),
        Leg("bob", Effect.CREDIT, 1250, EUR),
        related_id=OTHER_RAW,
        fields=("account_id", "to_account"),
    )


def test_void() -> None:
    """A void has no amount; its currency is looked up."""
    request = wallet_pb2.VoidRequest(
        transaction_id=ID, hold_transaction_id=OTHER, account_id="alice", reference="note"
    )
    assert transactions().void(request).transaction("JPY") == request_of(
        Kind.VOID, Leg("alice", Effect.VOID, 0, "JPY"), related_id=OTHER_RAW, fields=("account_id",)
    )


def test_refund() -> None:
    """A refund takes from the purchase's merchant, bounded by what was paid; the merchant's leg decides."""
    request = wallet_pb2.RefundRequest(**ASKED, purchase_transaction_id=OTHER, customer_account="alice")
    assert transactions().refund(request).transaction(
        Purchase("shop", 4000, EUR), slot("shop")
    ) == request_of(
        Kind.REFUND,
        Leg("shop", Effect.DEBIT, 1250, EUR),
        Leg("alice", Effect.REFUND, 1250, EUR),
        related_id=OTHER_RAW,
        bound=4000,
        fields=("purchase_transaction_id", "customer_account"),
    )


# ---------------------------------------------------------------- journals


def ask_journal(*legs: tuple[Any, ...]) -> wallet_pb2.PostJournalRequest:
    """A journal of (account, amount), (account, amount, currency), or these and an expected version."""
    request = wallet_pb2.PostJournalRequest(transaction_id=ID, reference="note", initiated_by="clerk")
    for account, amount, *more in legs:
        leg = request.legs.add(account_id=account, amount=amount, currency=more[0] if more else EUR)
        if len(more) == 2:
            leg.expected_version = more[1]
    return request


def test_journal() -> None:
    """Debits come first, then by account; fields and places keep the request's order."""
    found = transactions().journal(ask_journal(("a", "1"), ("b", "2.00"), ("c", "-2.50"), ("d", "-0.50")))
    assert found == request_of(
        Kind.JOURNAL,
        Leg("c", Effect.DEBIT, 250, EUR),
        Leg("d", Effect.DEBIT, 50, EUR),
        Leg("a", Effect.CREDIT, 100, EUR),
        Leg("b", Effect.CREDIT, 200, EUR),
        details=pack_details(Details(b"", b"clerk", b"note")),
        fields=(),
        places=(2, 3, 0, 1),
    )
    assert [found.account_field(leg) for leg in (0, 3)] == ["legs[2].account_id", "legs[1].account_id"]


@pytest.mark.parametrize(
    ("legs", "field", "why"),
    [
        ([], "legs", "this one has 0"),
        ([("a", "-1")], "legs", "this one has 1"),
        ([(f"a{n}", "1" if n % 2 else "-1") for n in range(MAX_LEGS + 2)], "legs", "this one has 102"),
        ([("a", "-1"), ("b", "1.01")], "legs", "EUR sums to 0.01"),
        ([("a", "-1"), ("b", "1", "USD")], "legs", "EUR sums to -1.00"),
        ([("a", "1"), ("b", "1")], "legs", "EUR sums to 2.00"),
        ([("a", "-1"), ("b", "2"), ("a", "-1")], "legs[2].account_id", "the account of legs[0] too"),
        ([("a", "-1"), ("@world:EUR", "1")], "legs[1].account_id", "belongs to the system"),
        ([("a", "-0"), ("b", "0")], "legs[0].amount", "above zero"),
        ([("a", "-1"), ("b", "+1")], "legs[1].amount", "must be digits"),
        ([("a", "--1"), ("b", "1")], "legs[0].amount", "must be digits"),
        ([("a", "-1.5", "JPY"), ("b", "1.5", "JPY")], "legs[0].amount", "the currency has 0"),
        ([("a", "-1"), ("b", "1", "eur")], "legs[1].currency", "ISO 4217"),
        ([("a", "-1", EUR, -1), ("b", "1")], "legs[0].expected_version", "is -1"),
        ([("a", "-1", EUR, 2**53), ("b", "1")], "legs[0].expected_version", "is 9007199254740992"),
        ([("b", "1", EUR, 0), ("a", "-1")], "legs[0].expected_version", "'b' is in another"),
        # Which account decides hangs on the order of their names, not on that of the request.
        ([("d", "-1", EUR, 5), ("c", "-1"), ("a", "2")], "legs[0].expected_version", "given for 'c'"),
    ],
)
def test_not_a_journal(legs: list[Any], field: str, why: str) -> None:
    """What is wrong with a journal is named by the leg and the part of it, or by the legs together."""
    refused = attempt(lambda: transactions().journal(ask_journal(*legs)))
    assert isinstance(refused, BadField)
    assert refused.field == field
    assert why in refused.message


@pytest.mark.parametrize("expecting", [(0,), (1,), (2,), (0, 1, 2)])
def test_versions_in_the_slot_that_decides(expecting: tuple[int, ...]) -> None:
    """Accounts in the slot of the one that decides may have a version, whether debited or credited."""
    versions = [NO_VERSION, NO_VERSION, NO_VERSION]
    legs: list[tuple[Any, ...]] = [(TAGGED[0], "-2"), (TAGGED[1], "-1"), (TAGGED[2], "2"), ("else", "1")]
    for place in expecting:
        legs[place] = (*legs[place], EUR, 10 + place)
        versions[place] = 10 + place
    found = transactions().journal(ask_journal(*legs)).transaction
    assert [leg.account for leg in found.legs] == [*TAGGED[:2], "else", TAGGED[2]]
    by_account = {leg.account: leg.expected_version for leg in found.legs}
    assert [by_account[name] for name in TAGGED] == versions
    assert by_account["else"] == NO_VERSION


@given(
    amounts=st.lists(st.integers(1, 10**9), min_size=1, max_size=MAX_LEGS - 1),
    seed=st.randoms(use_true_random=False),
)
def test_any_balanced_journal(amounts: list[int], seed: Any) -> None:
    """Whatever the order, the legs are those asked for, each once, and the first one is a debit."""
    signed = [*amounts, -sum(amounts)]
    seed.shuffle(signed)
    asked = [(f"account-{place}", str(amount), "JPY") for place, amount in enumerate(signed)]
    found = transactions().journal(ask_journal(*asked))
    assert found.transaction.legs[0].effect is Effect.DEBIT
    assert sorted(found.places) == list(range(len(signed)))
    for one, place in zip(found.transaction.legs, found.places, strict=True):
        minor = -one.amount_minor if one.effect is Effect.DEBIT else one.amount_minor
        assert (one.account, minor) == (f"account-{place}", signed[place])
    # Sent again in another order it is the same transaction, and moves nothing a second time.
    seed.shuffle(asked)
    assert transactions().journal(ask_journal(*asked)).transaction == found.transaction


# ---------------------------------------------------------------- batches


@settings(max_examples=150, deadline=None)
@given(
    requests=batches_in_order(),
    unusual=st.lists(
        st.tuples(
            st.integers(0, 8),
            st.sampled_from([(name, value) for name, value, _ in UNUSUAL])
            | st.tuples(st.sampled_from(["from_account", "amount", "reference"]), st.text(max_size=9)),
        ),
        max_size=4,
    ),
)
def test_a_batch_is_read_row_by_row(
    requests: list[Request], unusual: list[tuple[int, tuple[str, Any]]]
) -> None:
    """Each row is read as if alone; the bad and the checked are put aside, the rest has its order."""
    for place, (name, value) in unusual:
        at = place % len(requests)
        requests[at] = with_field(requests[at], name, value)
    alone = [attempt(lambda one=request: transactions().transfer(one)) for request in requests]  # type: ignore[misc]
    found = transactions().transfers(requests)
    assert found.bad == {place: one for place, one in enumerate(alone) if isinstance(one, BadField)}
    fit = {place: one for place, one in enumerate(alone) if not isinstance(one, BadField)}
    assert found.to_check == {place: one for place, one in fit.items() if requests[place].validate_only}
    assert found.batch == [one for place, one in fit.items() if not requests[place].validate_only]
