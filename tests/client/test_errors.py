"""The error family: complete, in its two branches, readable and picklable."""

import pickle
from datetime import UTC, datetime

import pytest

import tallystick
from tallystick.errors import (
    ERROR_TYPES,
    AccountFrozen,
    ClientClosed,
    ForkedClient,
    InsufficientFunds,
    InvalidArgument,
    NotYetArchived,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    Refused,
    RetryableError,
    TallystickError,
    Unavailable,
    WrongEventLoop,
)
from tallystick.v1 import outcome_pb2

SAID_NOTHING = {Outcome.OUTCOME_UNKNOWN, Outcome.RESOURCE_EXHAUSTED}


def test_every_outcome_of_the_contract_is_mirrored() -> None:
    """The enum has the contract's names and numbers, none missing and none of its own."""
    contract = {name.removeprefix("OUTCOME_"): number for name, number in outcome_pb2.Outcome.items()}
    assert {outcome.name: outcome.value for outcome in Outcome} == contract


def test_every_outcome_that_is_no_success_has_its_error() -> None:
    """There is an error for each outcome, and it knows which outcome it stands for."""
    assert set(ERROR_TYPES) == set(Outcome) - {Outcome.UNSPECIFIED, Outcome.COMMITTED, Outcome.VALID}
    assert all(kind.outcome == number for number, kind in ERROR_TYPES.items())


@pytest.mark.parametrize("number", ERROR_TYPES)
def test_branch_says_whether_to_ask_again(number: int) -> None:
    """Only the two outcomes that say nothing of the transfer are retryable; all others are refusals."""
    expected = RetryableError if Outcome(number) in SAID_NOTHING else Refused
    assert issubclass(ERROR_TYPES[number], expected)


def test_every_error_is_exported() -> None:
    """A caller needs nothing but `tallystick` to catch any of them."""
    kinds: set[type[TallystickError]] = {
        TallystickError,
        RetryableError,
        Refused,
        ClientClosed,
        ForkedClient,
        Unavailable,
        WrongEventLoop,
        NotYetArchived,
        *ERROR_TYPES.values(),
    }
    assert {kind.__name__ for kind in kinds} <= set(tallystick.__all__)
    assert all(hasattr(tallystick, name) for name in tallystick.__all__)


def test_text_is_a_sentence_with_what_is_known() -> None:
    """The text names the field, the case and the transaction, each once."""
    error = InvalidArgument("must be above zero", "0192", "amount")
    assert str(error) == "amount: must be above zero (transaction 0192)"
    assert str(InsufficientFunds()) == "insufficient funds"
    assert str(AccountFrozen("", "", "to_account")) == "to_account: the account is frozen"


def test_advice_is_given_once() -> None:
    """What to do follows the sentence, unless the service said it."""
    advice = "send it again with the same transaction_id"
    assert str(OutcomeUnknown("no answer", "0192")) == f"no answer; {advice} (transaction 0192)"
    said = "the outcome is not known; send it again with the same transaction_id"
    assert str(OutcomeUnknown(said, "0192")) == f"{said} (transaction 0192)"
    # Opening an account has no id, and can be done again without.
    assert str(OutcomeUnknown("no answer")) == "no answer; send it again"
    assert str(Unavailable("no answer")) == "no answer; nothing moved, ask again"
    assert str(Overloaded("busy")) == "busy; nothing was begun"


def test_unknown_never_reads_as_failed() -> None:
    """The text of OutcomeUnknown tells the reader what to do with the id."""
    text = str(OutcomeUnknown(transaction_id="0192"))
    assert "send it again with the same transaction_id" in text
    assert "fail" not in text


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument("m", "t", "f"),
        Overloaded("m", "t", "", 1.5),
        ClientClosed(),
        NotYetArchived("m", complete_until=datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_fields_survive_pickling(error: TallystickError) -> None:
    """An error that crosses a process keeps its type and fields."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)


def test_concerning_names_one_transfer_of_a_batch() -> None:
    """An error of a whole batch is said of each of its transfers, with all its fields."""
    error = Overloaded("busy", "", "", 2.0).concerning("0192")
    assert (error.message, error.transaction_id, error.retry_after_s) == ("busy", "0192", 2.0)
    until = datetime(2026, 3, 1, tzinfo=UTC)
    late = NotYetArchived("behind", complete_until=until).concerning("0192")
    assert isinstance(late, NotYetArchived)
    assert (late.message, late.transaction_id, late.complete_until) == ("behind", "0192", until)
