"""Requests for journals: the legs they become, and what is refused. Purchases, limits and checks, too."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.execution.purchases import Purchase
from router.requests.fields import BadField
from router.requests.journals import DEFAULT_HOLD_SECONDS, JournalReader
from router.requests.reader import AccountTerms
from shard_node.cluster.slots import slot
from shard_node.contract.journals import NO_ID, Effect, Journal, Leg
from shard_node.contract.transfers import Details, Kind, pack_details, unpack_body, unpack_details
from shard_node.limits import MAX_HOLD_SECONDS, MAX_LEGS
from tallystick.v1 import wallet_pb2
from tests.router.samples import ID, Asked, attempt, reader, uuid7

OTHER = uuid7(0)
RAW, OTHER_RAW = UUID(ID).bytes, UUID(OTHER).bytes
EUR = "EUR"
NOTE = pack_details(Details(reference=b"note"))


def journals() -> JournalReader:
    """A reader of journals."""
    return JournalReader(reader())


def leg(account: str, effect: Effect, amount: int, currency: str = EUR) -> Leg:
    """A leg in the account's slot."""
    return Leg(account, slot(account), effect, amount, currency)


def test_hold() -> None:
    """A hold is one leg whose bound is its life in milliseconds."""
    request = wallet_pb2.HoldRequest(
        transaction_id=ID, account_id="alice", amount="12.50", currency=EUR, life_seconds=60, reference="note"
    )
    read = journals().hold(request)
    assert read.transaction_id == RAW
    assert read.journal == Journal(Kind.HOLD, (leg("alice", Effect.HOLD, 1250),), NOTE, NO_ID, 60_000)
    assert read.fields == ("account_id",)


@pytest.mark.parametrize(
    ("asked", "seconds"), [(None, DEFAULT_HOLD_SECONDS), (1, 1), (MAX_HOLD_SECONDS,) * 2]
)
def test_lives_of_holds(asked: int | None, seconds: int) -> None:
    """A hold lasts a week unless it says otherwise, a second at the least and 31 days at the most."""
    request = wallet_pb2.HoldRequest(
        transaction_id=ID, account_id="alice", amount="1", currency=EUR, life_seconds=asked
    )
    assert journals().hold(request).journal.bound == seconds * 1000


@pytest.mark.parametrize("asked", [0, -1, MAX_HOLD_SECONDS + 1, -(2**63), 2**63 - 1])
def test_no_life_of_a_hold(asked: int) -> None:
    """Any other life is refused, and the limits are told."""
    request = wallet_pb2.HoldRequest(
        transaction_id=ID, account_id="alice", amount="1", currency=EUR, life_seconds=asked
    )
    refused = attempt(lambda: journals().hold(request))
    assert isinstance(refused, BadField)
    assert (refused.field, "31 days" in refused.message) == ("life_seconds", True)


def test_capture() -> None:
    """A capture takes from the hold that it names, and pays; the holder's leg decides."""
    request = wallet_pb2.CaptureRequest(
        transaction_id=ID,
        hold_transaction_id=OTHER,
        account_id="alice",
        to_account="bob",
        amount="3",
        currency=EUR,
        reference="note",
    )
    read = journals().capture(request)
    legs = (leg("alice", Effect.CAPTURE, 300), leg("bob", Effect.CREDIT, 300))
    assert read.journal == Journal(Kind.CAPTURE, legs, NOTE, OTHER_RAW)
    assert read.fields == ("account_id", "to_account")


def test_void() -> None:
    """A void has no amount; its currency is looked up."""
    request = wallet_pb2.VoidRequest(
        transaction_id=ID, hold_transaction_id=OTHER, account_id="alice", reference="note"
    )
    read = journals().void(request).journal("JPY")
    legs = (leg("alice", Effect.VOID, 0, "JPY"),)
    assert read.journal == Journal(Kind.VOID, legs, NOTE, OTHER_RAW)
    assert (read.transaction_id, read.fields) == (RAW, ("account_id",))


def test_refund() -> None:
    """A refund takes from the purchase's merchant, bounded by what was paid; the merchant's leg decides."""
    request = wallet_pb2.RefundRequest(
        transaction_id=ID,
        purchase_transaction_id=OTHER,
        customer_account="alice",
        amount="3",
        currency=EUR,
        reference="note",
    )
    read = journals().refund(request).journal(Purchase("shop", 4000, EUR), slot("shop"))
    legs = (leg("shop", Effect.DEBIT, 300), leg("alice", Effect.REFUND, 300))
    assert read.journal == Journal(Kind.REFUND, legs, NOTE, OTHER_RAW, 4000)
    assert read.fields == ("purchase_transaction_id", "customer_account")


def ask_journal(*legs: tuple[str, str] | tuple[str, str, str]) -> wallet_pb2.PostJournalRequest:
    """A journal of (account, amount) or (account, amount, currency)."""
    return wallet_pb2.PostJournalRequest(
        transaction_id=ID,
        legs=[
            wallet_pb2.JournalLeg(account_id=one[0], amount=one[1], currency=one[2] if len(one) == 3 else EUR)
            for one in legs
        ],
        reference="note",
        initiated_by="clerk",
    )


def test_journal() -> None:
    """Debits come first, then by account; fields and places keep the request's order."""
    read = journals().journal(ask_journal(("a", "1"), ("b", "2.00"), ("c", "-2.50"), ("d", "-0.50")))
    assert read.journal == Journal(
        Kind.JOURNAL,
        (
            leg("c", Effect.DEBIT, 250),
            leg("d", Effect.DEBIT, 50),
            leg("a", Effect.CREDIT, 100),
            leg("b", Effect.CREDIT, 200),
        ),
        pack_details(Details(b"", b"clerk", b"note")),
    )
    assert read.places == (2, 3, 0, 1)
    assert read.fields == tuple(f"legs[{place}].account_id" for place in read.places)


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
    ],
)
def test_not_a_journal(legs: list[Any], field: str, why: str) -> None:
    """What is wrong with a journal is named by the leg and the part of it, or by the legs together."""
    refused = attempt(lambda: journals().journal(ask_journal(*legs)))
    assert isinstance(refused, BadField)
    assert refused.field == field
    assert why in refused.message


@given(
    amounts=st.lists(st.integers(1, 10**9), min_size=1, max_size=MAX_LEGS - 1),
    seed=st.randoms(use_true_random=False),
)
def test_any_balanced_journal(amounts: list[int], seed: Any) -> None:
    """Whatever the order, the legs are those asked for, each once, and the first one is a debit."""
    signed = [*amounts, -sum(amounts)]
    seed.shuffle(signed)
    asked = [(f"account-{place}", str(amount), "JPY") for place, amount in enumerate(signed)]
    read = journals().journal(ask_journal(*asked))
    assert read.journal.legs[0].effect is Effect.DEBIT
    assert sorted(read.places) == list(range(len(signed)))
    for one, place in zip(read.journal.legs, read.places, strict=True):
        minor = -one.amount_minor if one.effect is Effect.DEBIT else one.amount_minor
        assert (one.account, minor) == (f"account-{place}", signed[place])
    assert Journal.unpack(read.journal.pack()) == read.journal
    # Sent again in another order it is the same journal, and moves nothing a second time.
    seed.shuffle(asked)
    assert journals().journal(ask_journal(*asked)).journal == read.journal


def test_purchase() -> None:
    """A purchase is a transfer of its own kind; order_id and reference are its details."""
    request = wallet_pb2.PurchaseRequest(
        transaction_id=ID,
        customer_account="alice",
        merchant_account="shop",
        amount="12.50",
        currency=EUR,
        order_id="order 7",
        reference="note",
    )
    row = reader().purchase(request)
    terms = unpack_body(row[5])
    assert (terms.kind, terms.payer, terms.payee, terms.amount_minor) == (
        Kind.PURCHASE,
        "alice",
        "shop",
        1250,
    )
    assert unpack_details(terms.details) == Details(b"order 7", b"", b"note")
    assert row[6:] == (slot("alice"), slot("shop"))
    assert row[0][:16] == RAW


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
    fields: dict[str, Any] = {"customer_account": "alice", "merchant_account": "shop", field: value}
    request = wallet_pb2.PurchaseRequest(transaction_id=ID, amount="1", currency=EUR, **fields)
    refused = attempt(lambda: reader().purchase(request))
    assert isinstance(refused, BadField)
    assert refused.field == wrong


def test_account_terms() -> None:
    """Limits become minor units; those that are not given are none."""
    request = wallet_pb2.OpenAccountRequest(
        account_id="alice", currency=EUR, minimum_balance="-1", maximum_balance="100", maximum_transfer="0.01"
    )
    assert reader().account(request) == AccountTerms(slot("alice"), -100, 10_000, 1, 2)
    plain = wallet_pb2.OpenAccountRequest(account_id="alice", currency=EUR)
    assert reader().account(plain) == AccountTerms(slot("alice"), 0, 0, 0, 2)


@pytest.mark.parametrize("field", ["maximum_balance", "maximum_transfer"])
@pytest.mark.parametrize("value", ["0", "", "-1", "1.001", "1e3"])
def test_not_a_limit(field: str, value: str) -> None:
    """A limit is an amount above zero, or not there at all."""
    limits: dict[str, Any] = {field: value}
    request = wallet_pb2.OpenAccountRequest(account_id="alice", currency=EUR, **limits)
    refused = attempt(lambda: reader().account(request))
    assert isinstance(refused, BadField)
    assert refused.field == field


def test_checked_items_are_put_aside() -> None:
    """What is only to be checked is never among what is carried out; what is wrong with it is found alike."""
    asked = [Asked(reference=str(n)) for n in range(5)]
    for place in (1, 3, 4):
        asked[place].validate_only = True
    asked[3].amount = "0"
    read = reader().transfers(asked)
    assert [unpack_body(body).details for body in read.batch.bodies] == [b"0", b"2"]
    assert {place: bad.field for place, bad in read.bad.items()} == {3: "amount"}
    assert list(read.to_check) == [1, 4]


def test_a_check_is_of_the_same_terms() -> None:
    """A check is about the very transfer that the same request makes without it: key, body and columns."""
    real = reader().transfer(Asked())
    assert reader().transfer(Asked(validate_only=True)) == real
    assert reader().transfers([Asked(validate_only=True)]).to_check == {0: real}
