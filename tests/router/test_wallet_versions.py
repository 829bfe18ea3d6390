"""expected_version over gRPC: what is carried out only if an account is as its caller has seen it."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.router.bank import Bank, Route, new_id, payment
from tests.router.contract import Refusal
from tests.router.test_wallet_bad_input import invalid

pytestmark = pytest.mark.cluster


def mismatch(field: str) -> Refusal:
    """How a call that names another version is refused."""
    return Refusal(grpc.StatusCode.ABORTED, "VERSION_MISMATCH", field)


def version(bank: Bank, account_id: str) -> int:
    """An account's version."""
    look = bank.look(account_id)[account_id]
    assert look is not None
    return look.version


def journal(*legs: tuple[str, str] | tuple[str, str, int]) -> dict[str, Any]:
    """A journal of euros: accounts and amounts, some with the version expected."""
    made = []
    for account_id, amount, *expected in legs:
        leg: dict[str, Any] = {"account_id": account_id, "amount": amount, "currency": "EUR"}
        made.append(leg | {"expected_version": expected[0]} if expected else leg)
    return {"transaction_id": new_id(), "legs": made}


def test_a_transfer_at_a_version(bank: Bank, route: Route) -> None:
    """It is carried out at that version of the payer's account, and refused, for good, at any other."""
    payer, payee = bank.pair(route)
    seen = version(bank, payer)
    asked = payment(payer, payee) | {"expected_version": seen}
    for _ in range(2):
        assert bank.outcome(bank.wallet.call("Transfer", **asked)) == "COMMITTED"
    before = bank.look(payer, payee)
    for other in (seen, seen + 2, 0):
        late = payment(payer, payee) | {"expected_version": other}
        for only_check in (True, False, False):
            refused = bank.wallet.refused("Transfer", **late, validate_only=only_check)
            assert refused == mismatch("expected_version")
    assert bank.look(payer, payee) == before
    assert version(bank, payer) == seen + 1


def test_version_zero(bank: Bank, route: Route) -> None:
    """0 is a version, that of an account that nothing has changed yet, and not "any will do"."""
    payer, payee = bank.open(route.payer_tag, minimum_balance="-5.00"), bank.open(route.payee_tag)
    for expected in ("COMMITTED", "VERSION_MISMATCH"):
        asked = payment(payer, payee) | {"expected_version": 0}
        (result,) = bank.wallet.call("BatchTransfer", transfers=[asked]).results
        assert bank.outcome(result) == expected
    assert bank.available(payer) == "-1.00"


def test_a_version_is_part_of_the_transfer(bank: Bank, route: Route) -> None:
    """An id that was used with a version cannot be used with another, or with none."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee) | {"expected_version": version(bank, payer)}
    bank.wallet.call("Transfer", **asked)
    expected = Refusal(grpc.StatusCode.ALREADY_EXISTS, "TRANSACTION_ID_REUSED", "transaction_id")
    without = {name: value for name, value in asked.items() if name != "expected_version"}
    for other in (without, asked | {"expected_version": version(bank, payer)}):
        assert bank.wallet.refused("Transfer", **other) == expected


@pytest.mark.parametrize("return_balances", [True, False])
def test_versions_in_a_batch(bank: Bank, route: Route, *, return_balances: bool) -> None:
    """Of rows that expect one version of an account the first alone is carried out; others do not mind."""
    payer, payee = bank.pair(route)
    at = {"expected_version": version(bank, payer)}
    asked = [payment(payer, payee) | at, payment(payer, payee) | at, payment(payer, payee)]
    results = bank.wallet.call("BatchTransfer", transfers=asked, return_balances=return_balances).results
    outcomes = [bank.outcome(result) for result in results]
    # A batch has no order: the one without a version may go first.
    assert outcomes[2] == "COMMITTED"
    refused = [result.refusal for result in results[:2] if result.HasField("refusal")]
    assert {(bank.outcome(refusal), refusal.field) for refusal in refused} == {
        ("VERSION_MISMATCH", "expected_version")
    }
    done = outcomes.count("COMMITTED")
    assert done + len(refused) == len(asked)
    assert bank.available(payee) == f"{done}.00"


@pytest.mark.parametrize("in_batch", [True, False])
def test_no_version(bank: Bank, route: Route, *, in_batch: bool) -> None:
    """A version below 0 is none."""
    asked = payment(*bank.pair(route)) | {"expected_version": -1}
    if in_batch:
        (result,) = bank.wallet.call("BatchTransfer", transfers=[asked]).results
        assert (bank.outcome(result), result.refusal.field) == ("INVALID_ARGUMENT", "expected_version")
    else:
        assert bank.wallet.refused("Transfer", **asked) == invalid("expected_version")


def test_a_version_that_no_account_reaches(bank: Bank, route: Route) -> None:
    """It is refused by itself: what other callers sent at the same time is carried out."""
    payer, payee = bank.pair(route)
    asked = [payment(payer, payee), payment(payer, payee) | {"expected_version": 2**63 - 1}]
    done, refused = bank.wallet.call("BatchTransfer", transfers=asked).results
    assert bank.outcome(done) == "COMMITTED"
    assert (bank.outcome(refused), refused.refusal.field) == ("INVALID_ARGUMENT", "expected_version")


def test_a_journal_at_versions(bank: Bank, route: Route) -> None:
    """Each account in the slot that decides may have one; the leg of the one that is another is named."""
    tag = route.payer_tag
    payer, other, payee = bank.open(tag, "9.00"), bank.open(tag, "9.00"), bank.open(route.payee_tag)
    seen = version(bank, payer), version(bank, other)
    for wrong in (0, 1):
        expected = list(seen)
        expected[wrong] += 1
        asked = journal((payee, "3.00"), (payer, "-1.00", expected[0]), (other, "-2.00", expected[1]))
        for only_check in (True, False):
            refused = bank.wallet.refused("PostJournal", **asked, validate_only=only_check)
            assert refused == mismatch(f"legs[{1 + wrong}].expected_version")
    asked = journal((payee, "3.00"), (payer, "-1.00", seen[0]), (other, "-2.00", seen[1]))
    for _ in range(2):
        assert bank.outcome(bank.wallet.call("PostJournal", **asked)) == "COMMITTED"
    assert (version(bank, payer), version(bank, other)) == (seen[0] + 1, seen[1] + 1)
    assert bank.available(payee) == "3.00"


def test_a_version_of_another_slot(bank: Bank) -> None:
    """Only the shard that decides compares versions, so those of accounts in other slots are refused."""
    payer, payee = bank.pair(bank.routes["across shards"])
    asked = journal((payee, "1.00", version(bank, payee)), (payer, "-1.00"))
    before = bank.look(payer, payee)
    assert bank.wallet.refused("PostJournal", **asked) == invalid("legs[0].expected_version")
    assert bank.look(payer, payee) == before
