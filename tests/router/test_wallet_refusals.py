"""Every refusal that a transfer can meet, within a shard and across two: it says why, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from shard_node.contract import AccountState
from shard_node.limits import MAX_MINOR
from tests.router.bank import Bank, Route, new_id, payment
from tests.router.contract import Refusal, read_refusal
from tests.router.samples import uuid7, wall_ms

pytestmark = pytest.mark.cluster

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS

Asked = dict[str, str]
# No other test uses these: a shard's own account in such a currency has its limit, too.
RARE = {"same shard": "BTN", "across shards": "MVR"}
LARGEST = f"{MAX_MINOR // 100}.{MAX_MINOR % 100:02d}"
TWO_HOURS_MS = 2 * 3600 * 1000


def short_of_money(bank: Bank, route: Route) -> Asked:
    """One cent too much."""
    return payment(*bank.pair(route, "10.00"), "10.01")


def short_of_credit(bank: Bank, route: Route) -> Asked:
    """One cent below the credit line."""
    payer = bank.open(route.payer_tag, "10.00", minimum_balance="-5.00")
    return payment(payer, bank.open(route.payee_tag), "15.01")


def payer_in_dollars(bank: Bank, route: Route) -> Asked:
    """The payer is held in another currency."""
    return payment(bank.open(route.payer_tag, "9.00", "USD"), bank.open(route.payee_tag))


def payee_in_dollars(bank: Bank, route: Route) -> Asked:
    """The payee is held in another currency."""
    return payment(bank.open(route.payer_tag, "9.00"), bank.open(route.payee_tag, currency="USD"))


def both_in_dollars(bank: Bank, route: Route) -> Asked:
    """The request names another currency than both accounts have."""
    return payment(*bank.pair(route, "9.00", "USD"))


def no_payer(bank: Bank, route: Route) -> Asked:
    """The payer was never opened."""
    return payment(bank.name(route.payer_tag), bank.open(route.payee_tag))


def no_payee(bank: Bank, route: Route) -> Asked:
    """The payee was never opened."""
    return payment(bank.open(route.payer_tag, "9.00"), bank.name(route.payee_tag))


def nobody(bank: Bank, route: Route) -> Asked:
    """Neither was opened."""
    return payment(bank.name(route.payer_tag), bank.name(route.payee_tag))


def in_state(side: int, state: AccountState) -> Callable[[Bank, Route], Asked]:
    """The payer (0) or payee (1) is frozen or closed."""

    def scene(bank: Bank, route: Route) -> Asked:
        accounts = bank.pair(route)
        bank.set_state(accounts[side], state)
        return payment(*accounts)

    scene.__name__ = f"{('payer', 'payee')[side]}_{state.name.lower()}"
    return scene


def payee_full(bank: Bank, route: Route) -> Asked:
    """The payee has 2^53 - 1 minor units, which a deposit brought."""
    currency = RARE[route.name]
    payer = bank.open(route.payer_tag, currency=currency, minimum_balance="-1.00")
    payee = bank.open(route.payee_tag, LARGEST, currency)
    return payment(payer, payee, "0.01", currency)


def id_of_another_amount(bank: Bank, route: Route) -> Asked:
    """The id belongs to a transfer that was done."""
    done = payment(*bank.pair(route))
    bank.wallet.call("Transfer", **done)
    return {**done, "amount": "2.00"}


def id_of_a_refusal(bank: Bank, route: Route) -> Asked:
    """The id belongs to a transfer that was refused."""
    refused = short_of_money(bank, route)
    assert bank.wallet.refused("Transfer", **refused).reason == "INSUFFICIENT_FUNDS"
    return {**refused, "amount": "1.00"}


def expired_id(bank: Bank, route: Route) -> Asked:
    """The id is older than the cluster remembers outcomes."""
    old = uuid7(wall_ms() - TWO_HOURS_MS)
    return payment(*bank.pair(route), transaction_id=old)


def expired_id_for_nobody(bank: Bank, route: Route) -> Asked:
    """The id is too old, and the payee is not there either: of that nothing can be said any more."""
    payer = bank.open(route.payer_tag, "9.00")
    old = uuid7(wall_ms() - TWO_HOURS_MS)
    return payment(payer, bank.name(route.payee_tag), transaction_id=old)


SCENES: dict[Callable[[Bank, Route], Asked], Refusal] = {
    short_of_money: Refusal(PRECONDITION, "INSUFFICIENT_FUNDS", "from_account"),
    short_of_credit: Refusal(PRECONDITION, "INSUFFICIENT_FUNDS", "from_account"),
    payer_in_dollars: Refusal(PRECONDITION, "CURRENCY_MISMATCH", "from_account"),
    payee_in_dollars: Refusal(PRECONDITION, "CURRENCY_MISMATCH", "to_account"),
    both_in_dollars: Refusal(PRECONDITION, "CURRENCY_MISMATCH", "to_account"),
    no_payer: Refusal(NOT_FOUND, "ACCOUNT_NOT_FOUND", "from_account"),
    no_payee: Refusal(NOT_FOUND, "ACCOUNT_NOT_FOUND", "to_account"),
    nobody: Refusal(NOT_FOUND, "ACCOUNT_NOT_FOUND", "to_account"),
    in_state(0, AccountState.FROZEN): Refusal(PRECONDITION, "ACCOUNT_FROZEN", "from_account"),
    in_state(1, AccountState.FROZEN): Refusal(PRECONDITION, "ACCOUNT_FROZEN", "to_account"),
    in_state(0, AccountState.CLOSED): Refusal(PRECONDITION, "ACCOUNT_CLOSED", "from_account"),
    in_state(1, AccountState.CLOSED): Refusal(PRECONDITION, "ACCOUNT_CLOSED", "to_account"),
    payee_full: Refusal(PRECONDITION, "BALANCE_LIMIT", "to_account"),
    id_of_another_amount: Refusal(EXISTS, "TRANSACTION_ID_REUSED", "transaction_id"),
    id_of_a_refusal: Refusal(EXISTS, "TRANSACTION_ID_REUSED", "transaction_id"),
    expired_id: Refusal(PRECONDITION, "TRANSACTION_ID_EXPIRED", "transaction_id"),
    expired_id_for_nobody: Refusal(PRECONDITION, "TRANSACTION_ID_EXPIRED", "transaction_id"),
}


@pytest.mark.parametrize(("scene", "expected"), SCENES.items(), ids=[scene.__name__ for scene in SCENES])
def test_refusal(bank: Bank, route: Route, scene: Callable[[Bank, Route], Asked], expected: Refusal) -> None:
    """A refused transfer says why, says the same each time it is sent, and changes no account.

    In a batch it fails alone: the transfers before and behind it are carried out.
    """
    asked = scene(bank, route)
    accounts = (asked["from_account"], asked["to_account"])
    before = bank.look(*accounts)
    for _ in range(2):
        assert bank.wallet.refused("Transfer", **asked) == expected
    assert bank.look(*accounts) == before

    payer, payee = bank.pair(route)
    fine = [payment(payer, payee, "0.01"), payment(payer, payee, "0.02")]
    batch = bank.wallet.call("BatchTransfer", transfers=[fine[0], asked, fine[1]], return_balances=True)
    assert [bank.outcome(result) for result in batch.results] == ["COMMITTED", expected.reason, "COMMITTED"]
    refused = batch.results[1]
    assert refused.transaction_id == asked["transaction_id"]
    assert (bank.outcome(refused.refusal), refused.refusal.field) == (expected.reason, expected.field)
    assert refused.refusal.message
    assert not refused.HasField("from_available")
    assert not refused.HasField("to_available")
    assert bank.available(payee) == "0.03"
    assert bank.look(*accounts) == before


def test_a_refusal_is_final(bank: Bank, route: Route) -> None:
    """Money that comes later does not change the outcome of an id; a new id is a new transfer."""
    asked = short_of_money(bank, route)
    first = bank.wallet.refused("Transfer", **asked)
    bank.fund(asked["from_account"], "100.00")
    assert bank.wallet.refused("Transfer", **asked) == first
    assert bank.available(asked["to_account"]) == "0.00"
    asked["transaction_id"] = new_id()
    assert bank.outcome(bank.wallet.call("Transfer", **asked)) == "COMMITTED"


def test_not_found_is_final(bank: Bank, route: Route) -> None:
    """An account that is opened later does not change the outcome of an id either."""
    asked = no_payee(bank, route)
    first = bank.wallet.refused("Transfer", **asked)
    bank.wallet.call("OpenAccount", account_id=asked["to_account"], currency="EUR")
    assert bank.wallet.refused("Transfer", **asked) == first
    assert bank.available(asked["to_account"]) == "0.00"


@pytest.mark.parametrize("field", ["to_account", "amount", "currency", "reference"])
def test_an_id_belongs_to_its_contents(bank: Bank, route: Route, field: str) -> None:
    """An id sent with any other field is refused, and the transfer it belongs to stands as it was."""
    payer, payee = bank.pair(route)
    done = payment(payer, payee, "5.00")
    bank.wallet.call("Transfer", **done)
    other_payee = bank.open(route.payee_tag)
    other = {"to_account": other_payee, "amount": "5.01", "currency": "USD", "reference": ""}[field]
    before = bank.look(payer, payee, other_payee)
    expected = Refusal(EXISTS, "TRANSACTION_ID_REUSED", "transaction_id")
    assert bank.wallet.refused("Transfer", **{**done, field: other}) == expected
    assert bank.look(payer, payee, other_payee) == before
    found = bank.wallet.call("GetTransfer", transaction_id=done["transaction_id"], from_account=payer)
    assert (bank.outcome(found), found.amount) == ("COMMITTED", "5.00")
    assert bank.outcome(bank.wallet.call("Transfer", **done)) == "COMMITTED"


def test_an_id_is_taken_within_one_batch(bank: Bank, route: Route) -> None:
    """One id twice in a batch: the same contents share an outcome, others are refused."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee, "5.00")
    batch = bank.wallet.call("BatchTransfer", transfers=[asked, asked, {**asked, "amount": "6.00"}])
    outcomes = [bank.outcome(result) for result in batch.results]
    assert outcomes == ["COMMITTED", "COMMITTED", "TRANSACTION_ID_REUSED"]
    assert bank.available(payee) == "5.00"


def test_an_id_crosses_from_one_shard_to_two(bank: Bank) -> None:
    """The same payer cannot use one id for a payee on its shard and for one elsewhere."""
    payer, near = bank.pair(bank.routes["same shard"])
    far = bank.open(bank.routes["across shards"].payee_tag)
    for first, second in ((near, far), (far, near)):
        asked = payment(payer, first)
        bank.wallet.call("Transfer", **asked)
        before = bank.look(payer, near, far)
        refused = bank.wallet.refused("Transfer", **{**asked, "to_account": second})
        assert refused.reason == "TRANSACTION_ID_REUSED"
        assert bank.look(payer, near, far) == before


def test_the_largest_balance(bank: Bank) -> None:
    """An account can hold 2^53 - 1 minor units, exactly; one more is refused, and all of it comes back."""
    account = bank.open(bank.tags[2], LARGEST, "KGS")
    fields = {"account_id": account, "currency": "KGS"}
    assert bank.available(account) == LARGEST
    before = bank.look(account)
    refused = bank.wallet.refused("Deposit", transaction_id=new_id(), amount="0.01", **fields)
    assert refused == Refusal(PRECONDITION, "BALANCE_LIMIT", "account_id")
    assert bank.look(account) == before
    took = bank.wallet.call("Withdraw", transaction_id=new_id(), amount=LARGEST, **fields)
    assert took.from_available == "0.00"


def test_a_system_account_at_its_bound_is_not_the_customers_fault(bank: Bank) -> None:
    """Deposits, or withdrawals, that a shard's own account cannot take say so, and name no field."""
    tag = bank.tags[0]
    rich, poor = bank.open(tag, LARGEST, "AFN"), bank.open(tag, currency="AFN")
    told = refused_by_system(bank, "Deposit", account_id=poor, amount="0.01", currency="AFN")
    assert "@world:AFN" in told
    assert "refused until others withdraw as much" in told
    bank.wallet.call("Withdraw", transaction_id=new_id(), account_id=rich, amount=LARGEST, currency="AFN")
    bank.fund(poor, "0.01", "AFN")

    credit = f"{LARGEST[:-1]}0"
    debtor = bank.open(tag, currency="AOA", minimum_balance=f"-{credit}")
    other = bank.open(tag, currency="AOA", minimum_balance="-1.00")
    bank.wallet.call("Withdraw", transaction_id=new_id(), account_id=debtor, amount=credit, currency="AOA")
    told = refused_by_system(bank, "Withdraw", account_id=other, amount="0.02", currency="AOA")
    assert "@world:AOA" in told
    assert "refused until others deposit as much" in told


def refused_by_system(bank: Bank, method: str, **fields: str) -> str:
    """What is said of a call that only a system account stands in the way of, checked and for good."""
    before = bank.look(fields["account_id"])
    told: set[str] = set()
    for only_check in (True, False):
        with pytest.raises(grpc.RpcError) as caught:
            bank.wallet.call(method, transaction_id=new_id(), validate_only=only_check, **fields)
        assert read_refusal(caught.value) == Refusal(PRECONDITION, "BALANCE_LIMIT", "")
        assert isinstance(caught.value, grpc.Call)
        told.add(str(caught.value.details()))
    assert bank.look(fields["account_id"]) == before
    (sentence,) = told
    return sentence


def test_the_largest_amount_crosses_shards(bank: Bank) -> None:
    """The largest balance goes to another shard in one transfer, exactly."""
    first, second, _ = bank.tags
    payer, payee = bank.open(first, LARGEST, "KZT"), bank.open(second, currency="KZT")
    response = bank.wallet.call("Transfer", **payment(payer, payee, LARGEST, "KZT"))
    assert (response.from_available, response.to_available) == ("0.00", LARGEST)


@pytest.mark.parametrize("method", ["Deposit", "Withdraw"])
def test_deposits_and_withdrawals_are_refused_alike(bank: Bank, method: str) -> None:
    """The same refusals, which all concern the field account_id or the id; nothing changes."""
    tag = bank.tags[0]
    frozen, closed, dollars = bank.open(tag, "9.00"), bank.open(tag, "9.00"), bank.open(tag, "9.00", "USD")
    bank.set_state(frozen, AccountState.FROZEN)
    bank.set_state(closed, AccountState.CLOSED)
    expected = {
        bank.name(tag): Refusal(NOT_FOUND, "ACCOUNT_NOT_FOUND", "account_id"),
        frozen: Refusal(PRECONDITION, "ACCOUNT_FROZEN", "account_id"),
        closed: Refusal(PRECONDITION, "ACCOUNT_CLOSED", "account_id"),
        dollars: Refusal(PRECONDITION, "CURRENCY_MISMATCH", "account_id"),
    }
    before = bank.look(*expected)
    for account, refusal in expected.items():
        asked = {"transaction_id": new_id(), "account_id": account, "amount": "1.00", "currency": "EUR"}
        for _ in range(2):
            assert bank.wallet.refused(method, **asked) == refusal
    assert bank.look(*expected) == before


def test_withdrawals_stop_at_the_floor(bank: Bank) -> None:
    """More than there is cannot be withdrawn."""
    account = bank.open(bank.tags[1], "9.00")
    asked = {"transaction_id": new_id(), "account_id": account, "amount": "9.01", "currency": "EUR"}
    expected = Refusal(PRECONDITION, "INSUFFICIENT_FUNDS", "account_id")
    assert bank.wallet.refused("Withdraw", **asked) == expected
    assert bank.available(account) == "9.00"


@pytest.mark.parametrize("method", ["Deposit", "Withdraw"])
def test_deposits_and_withdrawals_own_their_ids(bank: Bank, method: str) -> None:
    """An id of one cannot be used for the other, for a transfer of the account, or when it is too old."""
    account, payee = bank.open(bank.tags[1], "9.00"), bank.open(bank.tags[0])
    asked = {"transaction_id": new_id(), "account_id": account, "amount": "1.00", "currency": "EUR"}
    bank.wallet.call(method, **asked)
    before = bank.look(account, payee)
    reused = Refusal(EXISTS, "TRANSACTION_ID_REUSED", "transaction_id")
    other = {"Deposit": "Withdraw", "Withdraw": "Deposit"}[method]
    assert bank.wallet.refused(other, **asked) == reused
    assert bank.wallet.refused(method, **{**asked, "amount": "1.01"}) == reused
    transfer = payment(account, payee, transaction_id=asked["transaction_id"])
    assert bank.wallet.refused("Transfer", **transfer) == reused
    asked["transaction_id"] = uuid7(wall_ms() - TWO_HOURS_MS)
    expired = Refusal(PRECONDITION, "TRANSACTION_ID_EXPIRED", "transaction_id")
    assert bank.wallet.refused(method, **asked) == expired
    assert bank.look(account, payee) == before


def test_transaction_not_found(bank: Bank, route: Route) -> None:
    """An id that was never sent, or belongs to another payer, is not found."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee)
    bank.wallet.call("Transfer", **asked)
    expected = Refusal(NOT_FOUND, "TRANSACTION_NOT_FOUND", "")
    assert bank.wallet.refused("GetTransfer", transaction_id=new_id(), from_account=payer) == expected
    stranger = bank.open(bank.tags[2])
    refused = bank.wallet.refused(
        "GetTransfer", transaction_id=asked["transaction_id"], from_account=stranger
    )
    assert refused == expected
