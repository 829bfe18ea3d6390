"""Values to messages and back: money stays exact, and ids equal their echo."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tallystick import wire
from tallystick.errors import AccountNotFound, InsufficientFunds, InvalidArgument, Outcome, OutcomeUnknown
from tallystick.v1 import outcome_pb2, wallet_pb2
from tallystick.values import AccountState, Amount, NewAccount

ID = "0192f0c4-5a00-7abc-8def-0123456789ab"
ASKED = wallet_pb2.DepositRequest(transaction_id=ID)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("12.50", "12.50"),
        (" nonsense ", " nonsense "),
        (12, "12"),
        (2**53 - 1, "9007199254740991"),
        (Decimal("12.50"), "12.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-7"), "0.0000001"),
        (Decimal(-5), "-5"),
        (Decimal("NaN"), "NaN"),
    ],
)
def test_amounts_are_said_exactly(amount: Amount, text: str) -> None:
    """Every digit is kept, none is added, exponents are written out; the service judges the rest."""
    assert wire.amount_text(amount) == text


class _Coin(IntEnum):
    CENT = 1


@pytest.mark.parametrize("amount", [12.5, True, None, b"1", Fraction(1, 2), _Coin.CENT])
def test_anything_inexact_or_odd_is_refused(amount: Amount) -> None:
    """A float never becomes money: the error names the type, the value and the way out."""
    with pytest.raises(
        InvalidArgument, match=f"amount: must be decimal.Decimal, str or int, is {type(amount).__name__}"
    ):
        wire.amount_text(amount)


@pytest.mark.parametrize("amount", [Decimal("1E+999999"), Decimal("1E-999999")])
def test_absurd_exponent_is_refused_before_it_fills_memory(amount: Decimal) -> None:
    """A million digits are not written out only to be refused."""
    with pytest.raises(InvalidArgument) as caught:
        wire.amount_text(amount)
    assert caught.value.field == "amount"


def test_ids_are_sent_in_the_form_they_come_back() -> None:
    """UUID objects and upper-case text become the canonical text."""
    assert wire.id_text(uuid.UUID(ID)) == ID
    assert wire.id_text(ID.upper()) == ID
    with pytest.raises(InvalidArgument, match="is int"):
        wire.id_text(7)  # type: ignore[arg-type]


def test_credit_line_names_its_own_field() -> None:
    """A float as minimum_balance is reported as such."""
    with pytest.raises(InvalidArgument, match="minimum_balance: must be"):
        wire.open_account_request(NewAccount("a", "EUR", -0.5))  # type: ignore[arg-type]
    assert wire.open_account_request(NewAccount("a", "EUR", Decimal("-0.50"))).minimum_balance == "-0.50"


def test_account_carries_exact_decimals() -> None:
    """Balances are Decimal with the currency's decimals as the service wrote them."""
    account = wire.account(
        wallet_pb2.Account(
            account_id="a",
            currency="EUR",
            available="-12.50",
            held="0.00",
            version=7,
            state=wallet_pb2.ACCOUNT_STATE_FROZEN,
            minimum_balance="-100.00",
        )
    )
    assert str(account.available) == "-12.50"
    assert (account.held, account.minimum_balance) == (Decimal(0), Decimal(-100))
    assert (account.version, account.state) == (7, AccountState.FROZEN)


def test_account_item_of_a_batch_is_an_account_or_an_error() -> None:
    """Each item tells its own: found, refused, missing, or of another account."""
    found = wallet_pb2.AccountResult(account=wallet_pb2.Account(account_id="a", available="1.00"))
    refusal = wallet_pb2.Refusal(outcome=outcome_pb2.OUTCOME_ACCOUNT_NOT_FOUND, message="no")
    refused = wire.account_result(wallet_pb2.AccountResult(refusal=refusal), "a")
    result = wire.account_result(found, "a")
    assert result.account is not None
    assert result.account.available == 1
    assert isinstance(refused.error, AccountNotFound)
    assert isinstance(wire.account_result(found, "b").error, OutcomeUnknown)
    assert isinstance(wire.account_result(None, "a").error, OutcomeUnknown)
    assert isinstance(wire.account_result(wallet_pb2.AccountResult(), "a").error, OutcomeUnknown)


def test_balances_of_a_result_are_there_only_when_known() -> None:
    """A balance of zero is not the same as no balance."""
    response = wallet_pb2.TransferResponse(
        transaction_id=ID, outcome=outcome_pb2.OUTCOME_COMMITTED, from_available="0.00"
    )
    result = wire.transfer_result(response, ASKED)
    assert result.committed
    assert result.from_available == 0
    assert result.to_available is None


def test_unary_answer_of_another_id_is_unknown() -> None:
    """An answer that belongs to another transfer says nothing of ours."""
    response = wallet_pb2.TransferResponse(transaction_id="other", outcome=outcome_pb2.OUTCOME_COMMITTED)
    with pytest.raises(OutcomeUnknown) as caught:
        wire.transfer_result(response, ASKED)
    assert caught.value.transaction_id == ID


def test_unary_answer_that_is_not_committed_raises() -> None:
    """A refusal inside an answer without error status is not read as done."""
    response = wallet_pb2.TransferResponse(
        transaction_id=ID,
        outcome=outcome_pb2.OUTCOME_INSUFFICIENT_FUNDS,
        refusal=wallet_pb2.Refusal(message="3.00 missing"),
    )
    with pytest.raises(InsufficientFunds, match=r"3\.00 missing"):
        wire.transfer_result(response, ASKED)


def test_record_of_a_transfer() -> None:
    """The decision's time is aware and in UTC; what is not remembered is None."""
    when = datetime(2025, 6, 15, 12, 0, tzinfo=UTC)
    stamp = Timestamp()
    stamp.FromDatetime(when)
    full = wallet_pb2.GetTransferResponse(
        transaction_id=ID,
        from_account="a",
        outcome=outcome_pb2.OUTCOME_COMMITTED,
        amount="1.50",
        currency="EUR",
        decided_at=stamp,
    )
    record = wire.transfer_record(full)
    assert (record.amount, record.decided_at, record.outcome) == (Decimal("1.50"), when, Outcome.COMMITTED)
    bare = wire.transfer_record(wallet_pb2.GetTransferResponse(transaction_id=ID))
    assert (bare.amount, bare.decided_at) == (None, None)
