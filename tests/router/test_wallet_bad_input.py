"""Malformed requests over gRPC: INVALID_ARGUMENT with the field, in every RPC, and nothing is done."""

# ruff: noqa: RUF001 -- characters that only look right are what some of these tests are about

from __future__ import annotations

from typing import Any

import grpc
import pytest

from shard_node.limits import MAX_BATCH, MAX_MINOR
from tests.router.bank import Bank, Route, new_id, payment
from tests.router.contract import Refusal
from tests.router.samples import uuid7, wall_ms
from tests.router.test_wallet_journals import MAKERS

pytestmark = pytest.mark.cluster

BAD_IDS = [
    "",
    "7",
    "00000000-0000-0000-0000-000000000000",
    "{5f0c2a34-9d1b-4c7e-8a2f-6b3d9e014c57}",
    "5f0c2a349d1b4c7e8a2f6b3d9e014c57",
    "5f0c2a3-49d1b-4c7e-8a2f-6b3d9e014c57",
    "５f0c2a34-9d1b-4c7e-8a2f-6b3d9e014c57",
]
BAD_ACCOUNTS = ["", "x" * 65, "a b", "é", "a\n", "@world:EUR", "😀" * 10_000]
BAD_AMOUNTS = [
    *("", "0", "0.00", "-1", "+1", "1e3", "NaN", "1.", ".5", " 1", "1,000", "١", "1.001"),
    *(f"{MAX_MINOR + 1}", "1" + "0" * 30),
]
BAD_CURRENCIES = ["", "eur", "EURO", "ZZZ", "XAU", "XXX"]
BAD_REFERENCES = ["x" * 257, "é" * 128 + "x", "a\0b"]
BAD_TEXTS = ["x" * 129, "é" * 64 + "x", "\0"]
BAD_LIMITS = ["0", "", "-1", "1e3", "1.001", f"{MAX_MINOR}"]
BAD_LIVES = [0, -1, 31 * 24 * 3600 + 1, 2**63 - 1, -(2**63)]
BAD_FLOORS = ["", "1.00", "+0", "--1", "-1e3", "-1.001", f"-{MAX_MINOR}"]

OF_TRANSFERS = {
    "transaction_id": BAD_IDS,
    "from_account": BAD_ACCOUNTS,
    "to_account": BAD_ACCOUNTS,
    "amount": BAD_AMOUNTS,
    "currency": BAD_CURRENCIES,
    "reference": BAD_REFERENCES,
}
OF_DEPOSITS = {
    "transaction_id": BAD_IDS,
    "account_id": BAD_ACCOUNTS,
    "amount": BAD_AMOUNTS,
    "currency": BAD_CURRENCIES,
    "reference": BAD_REFERENCES,
    "bank_transaction_id": BAD_TEXTS,
    "initiated_by": BAD_TEXTS,
}
COMMON = {
    "transaction_id": BAD_IDS,
    "amount": BAD_AMOUNTS,
    "currency": BAD_CURRENCIES,
    "reference": BAD_REFERENCES,
}
OF_ALL: dict[str, dict[str, list[Any]]] = {
    "Purchase": COMMON
    | {"customer_account": BAD_ACCOUNTS, "merchant_account": BAD_ACCOUNTS, "order_id": BAD_TEXTS},
    "Refund": COMMON | {"purchase_transaction_id": BAD_IDS, "customer_account": BAD_ACCOUNTS},
    "Hold": COMMON | {"account_id": BAD_ACCOUNTS, "life_seconds": BAD_LIVES},
    "Capture": COMMON
    | {"hold_transaction_id": BAD_IDS, "account_id": BAD_ACCOUNTS, "to_account": BAD_ACCOUNTS},
    "Void": {
        "transaction_id": BAD_IDS,
        "reference": BAD_REFERENCES,
        "hold_transaction_id": BAD_IDS,
        "account_id": BAD_ACCOUNTS,
    },
    "PostJournal": {
        "transaction_id": BAD_IDS,
        "reference": BAD_REFERENCES,
        "initiated_by": BAD_TEXTS,
    },
}
OF_LOOKUPS = {"transaction_id": BAD_IDS, "from_account": BAD_ACCOUNTS}
OF_OPENINGS = {
    "account_id": BAD_ACCOUNTS,
    "currency": BAD_CURRENCIES,
    "minimum_balance": BAD_FLOORS,
    "maximum_balance": BAD_LIMITS,
    "maximum_transfer": BAD_LIMITS,
}


def invalid(field: str) -> Refusal:
    """How a malformed field is refused."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", field, (field,))


@pytest.mark.parametrize("field", OF_TRANSFERS)
def test_transfer(bank: Bank, route: Route, field: str) -> None:
    """Each field of a transfer is checked, alone and in a batch; neither account changes."""
    payer, payee = bank.pair(route)
    before = bank.look(payer, payee)
    bad = [{**payment(payer, payee), field: value} for value in OF_TRANSFERS[field]]
    for asked in bad:
        assert bank.wallet.refused("Transfer", **asked) == invalid(field)
    results = bank.wallet.call("BatchTransfer", transfers=bad).results
    assert [result.transaction_id for result in results] == [asked["transaction_id"] for asked in bad]
    assert {bank.outcome(result) for result in results} == {"INVALID_ARGUMENT"}
    assert {(bank.outcome(result.refusal), result.refusal.field) for result in results} == {
        ("INVALID_ARGUMENT", field)
    }
    assert bank.look(payer, payee) == before


def test_self_transfer(bank: Bank) -> None:
    """An account cannot pay itself."""
    account = bank.open(bank.tags[0], "5.00")
    before = bank.look(account)
    assert bank.wallet.refused("Transfer", **payment(account, account)) == invalid("to_account")
    assert bank.look(account) == before


def test_an_id_from_the_future(bank: Bank) -> None:
    """A UUIDv7 from a clock that is an hour ahead is refused; one some seconds ahead is not."""
    payer, payee = bank.pair(bank.routes["across shards"])
    ahead = payment(payer, payee, transaction_id=uuid7(wall_ms() + 3_600_000))
    assert bank.wallet.refused("Transfer", **ahead) == invalid("transaction_id")
    near = payment(payer, payee, transaction_id=uuid7(wall_ms() + 10_000))
    assert bank.outcome(bank.wallet.call("Transfer", **near)) == "COMMITTED"


def test_a_refused_id_can_be_used(bank: Bank, route: Route) -> None:
    """A malformed request leaves nothing behind: the corrected one may have the same id."""
    payer, payee = bank.pair(route)
    asked = payment(payer, payee, "1.001")
    assert bank.wallet.refused("Transfer", **asked) == invalid("amount")
    missing = bank.wallet.refused("GetTransfer", transaction_id=asked["transaction_id"], from_account=payer)
    assert missing.reason == "TRANSACTION_NOT_FOUND"
    assert bank.outcome(bank.wallet.call("Transfer", **{**asked, "amount": "1.00"})) == "COMMITTED"


@pytest.mark.parametrize("method", ["Deposit", "Withdraw"])
@pytest.mark.parametrize("field", OF_DEPOSITS)
def test_deposit_and_withdrawal(bank: Bank, method: str, field: str) -> None:
    """Each field of a deposit or withdrawal is checked; the account does not change."""
    account = bank.open(bank.tags[1], "50.00")
    before = bank.look(account)
    for value in OF_DEPOSITS[field]:
        asked = {"transaction_id": new_id(), "account_id": account, "amount": "1.00", "currency": "EUR"}
        assert bank.wallet.refused(method, **{**asked, field: value}) == invalid(field)
    assert bank.look(account) == before


@pytest.mark.parametrize(
    ("method", "field"), [(method, field) for method, fields in OF_ALL.items() for field in fields]
)
def test_other_operations(bank: Bank, route: Route, method: str, field: str) -> None:
    """Each field of every other operation is checked, also by a request that only checks; nothing changes."""
    accounts, asked = MAKERS[method](bank, route)
    before = bank.look(*accounts)
    for value in OF_ALL[method][field]:
        for only_check in (False, True):
            spoilt = asked | {field: value, "validate_only": only_check}
            assert bank.wallet.refused(method, **spoilt) == invalid(field)
    assert bank.look(*accounts) == before
    # Nothing of it is left behind: the request as it was is carried out.
    assert bank.outcome(bank.wallet.call(method, **asked)) == "COMMITTED"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("account_id", BAD_ACCOUNTS),
        ("amount", [*BAD_AMOUNTS, "--1", "-0", "-"]),
        ("currency", BAD_CURRENCIES),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_legs(bank: Bank, route: Route, place: int, field: str, values: list[str]) -> None:
    """Each field of a leg is checked, and named with the leg's place."""
    accounts, asked = MAKERS["PostJournal"](bank, route)
    before = bank.look(*accounts)
    for value in values:
        if value == "-1":
            continue
        legs = [dict(leg) for leg in asked["legs"]]
        legs[place][field] = value
        refused = bank.wallet.refused("PostJournal", **(asked | {"legs": legs}))
        assert refused == invalid(f"legs[{place}].{field}")
    assert bank.look(*accounts) == before


def test_journals_as_a_whole(bank: Bank, route: Route) -> None:
    """Too few legs, too many, an account twice, sums that are not zero: refused with the part named."""
    accounts, asked = MAKERS["PostJournal"](bank, route)
    before, legs = bank.look(*accounts), asked["legs"]
    twice = [*legs, {"account_id": accounts[1], "amount": "1.00", "currency": "EUR"}]
    other_currency = [legs[0], legs[1], legs[2] | {"currency": "USD"}]
    many = [{"account_id": f"a{n}", "amount": f"{'-' * (n % 2)}1", "currency": "EUR"} for n in range(102)]
    spoilt = {"legs": [[], legs[:1], legs[:2], other_currency, many], "legs[3].account_id": [twice]}
    for field, values in spoilt.items():
        for value in values:
            assert bank.wallet.refused("PostJournal", **(asked | {"legs": value})) == invalid(field)
    assert bank.look(*accounts) == before


def test_paying_oneself(bank: Bank) -> None:
    """A customer is not its own merchant, and a hold does not pay its own account."""
    account = bank.open(bank.tags[0], "5.00")
    before = bank.look(account)
    asked = {"transaction_id": new_id(), "amount": "1.00", "currency": "EUR"}
    both = {"customer_account": account, "merchant_account": account}
    assert bank.wallet.refused("Purchase", **asked, **both) == invalid("merchant_account")
    both = {"hold_transaction_id": new_id(), "account_id": account, "to_account": account}
    assert bank.wallet.refused("Capture", **asked, **both) == invalid("to_account")
    assert bank.look(account) == before


@pytest.mark.parametrize("method", ["FreezeAccount", "UnfreezeAccount", "CloseAccount"])
def test_states(bank: Bank, method: str) -> None:
    """The id of an account whose state is to change is checked."""
    for account_id in BAD_ACCOUNTS:
        assert bank.wallet.refused(method, account_id=account_id) == invalid("account_id")


@pytest.mark.parametrize("field", OF_LOOKUPS)
def test_get_transfer(bank: Bank, field: str) -> None:
    """Both fields of a look-up are checked."""
    for value in OF_LOOKUPS[field]:
        asked = {"transaction_id": new_id(), "from_account": "alice", field: value}
        assert bank.wallet.refused("GetTransfer", **asked) == invalid(field)


@pytest.mark.parametrize("field", OF_OPENINGS)
def test_open_account(bank: Bank, field: str) -> None:
    """Each field of an opening is checked, alone and in a batch; nothing is opened."""
    name = bank.name(bank.tags[0])
    bad = [{"account_id": name, "currency": "EUR", field: value} for value in OF_OPENINGS[field]]
    for asked in bad:
        assert bank.wallet.refused("OpenAccount", **asked) == invalid(field)
    results = bank.wallet.call("BatchOpenAccounts", accounts=bad).results
    assert {(bank.outcome(result.refusal), result.refusal.field) for result in results} == {
        ("INVALID_ARGUMENT", field)
    }
    assert len(results) == len(bad)
    assert bank.look(name) == {name: None}


def test_get_account(bank: Bank) -> None:
    """The id of a read is checked, alone and in a batch."""
    for account_id in BAD_ACCOUNTS:
        assert bank.wallet.refused("GetAccount", account_id=account_id) == invalid("account_id")
    results = bank.wallet.call("BatchGetAccounts", account_ids=BAD_ACCOUNTS).results
    assert [bank.outcome(result.refusal) for result in results] == ["INVALID_ARGUMENT"] * len(BAD_ACCOUNTS)


def test_the_largest_batches(bank: Bank) -> None:
    """Exactly 8192 items are taken by all three batch calls, and each is answered."""
    names = [bank.name(tag) for tag in bank.tags for _ in range(MAX_BATCH // 3)]
    names += [bank.name(bank.tags[0]) for _ in range(MAX_BATCH - len(names))]
    accounts = [{"account_id": name, "currency": "EUR"} for name in names]
    opened = bank.wallet.call("BatchOpenAccounts", accounts=accounts).results
    assert [result.account.account_id for result in opened] == names
    read = bank.wallet.call("BatchGetAccounts", account_ids=names).results
    assert [result.account.account_id for result in read] == names
    payer = bank.open(bank.tags[0], "100.00")
    transfers = [payment(payer, name, "0.01") for name in names]
    results = bank.wallet.call("BatchTransfer", transfers=transfers).results
    assert [result.transaction_id for result in results] == [one["transaction_id"] for one in transfers]
    assert {bank.outcome(result) for result in results} == {"COMMITTED"}
    assert bank.available(payer) == "18.08"
    read = bank.wallet.call("BatchGetAccounts", account_ids=names).results
    assert {result.account.available for result in read} == {"0.01"}


def test_oversized_batches(bank: Bank) -> None:
    """One item more is refused whole, with the field's name, by all three; nothing of it is done."""
    count = MAX_BATCH + 1
    names = [bank.name(bank.tags[0]) for _ in range(count)]
    accounts = [{"account_id": name, "currency": "EUR"} for name in names]
    assert bank.wallet.refused("BatchOpenAccounts", accounts=accounts) == invalid("accounts")
    assert bank.wallet.refused("BatchGetAccounts", account_ids=names) == invalid("account_ids")
    assert bank.look(names[0], names[-1]) == {names[0]: None, names[-1]: None}
    payer, payee = bank.pair(bank.routes["across shards"])
    before = bank.look(payer, payee)
    transfers = [payment(payer, payee, "0.01") for _ in range(count)]
    assert bank.wallet.refused("BatchTransfer", transfers=transfers) == invalid("transfers")
    assert bank.look(payer, payee) == before
