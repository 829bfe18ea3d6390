"""A service that somebody else wrote, with stubs made from the .proto files and nothing of the project.

It is copied beside such stubs and run as a program of its own: ``foreign_client.py HOST:PORT``. It calls
every RPC of all services, and prints what it called as JSON.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import grpc

import tallystick
from tallystick.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    outcome_pb2,
    wallet_pb2,
    wallet_pb2_grpc,
)


class Recorder:
    """A stub that keeps which of its methods were called."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self.called: list[str] = []

    def __getattr__(self, method: str) -> Any:
        self.called.append(method)
        return getattr(self._stub, method)


def use_wallet(wallet: Any) -> None:
    """A customer's day: accounts, money in, money across shards, money out."""
    run = uuid.uuid4().hex[:8]
    alice, bob, shop = (f"foreign-{run}-{name}" for name in ("alice", "bob", "shop"))
    account = wallet.OpenAccount(wallet_pb2.OpenAccountRequest(account_id=alice, currency="EUR"))
    assert (account.available, account.state) == ("0.00", wallet_pb2.ACCOUNT_STATE_OPEN)
    others = [
        wallet_pb2.OpenAccountRequest(account_id=name, currency="EUR", minimum_balance="-5.00")
        for name in (bob, shop)
    ]
    opened = wallet.BatchOpenAccounts(wallet_pb2.BatchOpenAccountsRequest(accounts=others))
    assert [result.account.minimum_balance for result in opened.results] == ["-5.00", "-5.00"]
    deposit = wallet_pb2.DepositRequest(
        transaction_id=str(uuid.uuid4()), account_id=alice, amount="100.00", currency="EUR"
    )
    assert wallet.Deposit(deposit).to_available == "100.00"

    def pay(payee: str, amount: str) -> wallet_pb2.TransferRequest:
        return wallet_pb2.TransferRequest(
            transaction_id=str(uuid.uuid4()),
            from_account=alice,
            to_account=payee,
            amount=amount,
            currency="EUR",
            reference="lunch",
        )

    lunch = pay(shop, "12.50")
    paid = wallet.Transfer(lunch)
    assert (paid.outcome, paid.from_available) == (outcome_pb2.OUTCOME_COMMITTED, "87.50")
    batch = wallet.BatchTransfer(
        wallet_pb2.BatchTransferRequest(transfers=[pay(bob, "7.50"), pay(bob, "1000.00"), pay(shop, "20.00")])
    )
    assert [outcome_pb2.Outcome.Name(result.outcome) for result in batch.results] == [
        "OUTCOME_COMMITTED",
        "OUTCOME_INSUFFICIENT_FUNDS",
        "OUTCOME_COMMITTED",
    ]
    found = wallet.GetTransfer(
        wallet_pb2.GetTransferRequest(transaction_id=lunch.transaction_id, from_account=alice)
    )
    assert (found.outcome, found.amount) == (outcome_pb2.OUTCOME_COMMITTED, "12.50")
    withdrawal = wallet_pb2.WithdrawRequest(
        transaction_id=str(uuid.uuid4()), account_id=shop, amount="30.00", currency="EUR"
    )
    assert wallet.Withdraw(withdrawal).from_available == "2.50"
    assert wallet.GetAccount(wallet_pb2.GetAccountRequest(account_id=alice)).available == "60.00"
    read = wallet.BatchGetAccounts(wallet_pb2.BatchGetAccountsRequest(account_ids=[bob, shop]))
    assert [result.account.available for result in read.results] == ["7.50", "2.50"]
    listed: dict[str, str] = {}
    page = wallet_pb2.ListAccountsRequest(page_size=2, prefix=f"foreign-{run}-")
    while not listed or page.page_token:
        answer = wallet.ListAccounts(page)
        listed |= {account.account_id: account.available for account in answer.accounts}
        page.page_token = answer.next_page_token
    assert listed == {alice: "60.00", bob: "7.50", shop: "2.50"}


def use_money(wallet: Any) -> tuple[str, str]:
    """A merchant's day: purchases and refunds, holds, a fee split, and accounts that end.

    Gives the customer's account and the purchase's id.
    """
    run = uuid.uuid4().hex[:8]
    alice, shop, carrier = (f"foreign-{run}-{name}" for name in ("anna", "bookshop", "carrier"))

    def new_id() -> str:
        return str(uuid.uuid4())

    for name in (alice, shop, carrier):
        wallet.OpenAccount(
            wallet_pb2.OpenAccountRequest(account_id=name, currency="EUR", maximum_transfer="500")
        )
    wallet.Deposit(
        wallet_pb2.DepositRequest(
            transaction_id=new_id(),
            account_id=alice,
            amount="100.00",
            currency="EUR",
            bank_transaction_id="SEPA-1",
            initiated_by="anna",
        )
    )
    bought = wallet_pb2.PurchaseRequest(
        transaction_id=new_id(),
        customer_account=alice,
        merchant_account=shop,
        amount="40.00",
        currency="EUR",
        order_id="1",
        validate_only=True,
    )
    assert wallet.Purchase(bought).outcome == outcome_pb2.OUTCOME_VALID
    bought.validate_only = False
    assert wallet.Purchase(bought).to_available == "40.00"
    returned = wallet_pb2.RefundRequest(
        transaction_id=new_id(),
        purchase_transaction_id=bought.transaction_id,
        customer_account=alice,
        amount="15.00",
        currency="EUR",
    )
    assert wallet.Refund(returned).to_available == "75.00"
    holds = [
        wallet_pb2.HoldRequest(
            transaction_id=new_id(), account_id=alice, amount="20.00", currency="EUR", life_seconds=60
        )
        for _ in range(2)
    ]
    assert [wallet.Hold(one).available for one in holds] == ["55.00", "35.00"]
    captured = wallet_pb2.CaptureRequest(
        transaction_id=new_id(),
        hold_transaction_id=holds[0].transaction_id,
        account_id=alice,
        to_account=shop,
        amount="12.00",
        currency="EUR",
    )
    assert wallet.Capture(captured).from_available == "43.00"
    voided = wallet_pb2.VoidRequest(
        transaction_id=new_id(), hold_transaction_id=holds[1].transaction_id, account_id=alice
    )
    assert wallet.Void(voided).available == "63.00"
    split = wallet_pb2.PostJournalRequest(
        transaction_id=new_id(),
        legs=[
            wallet_pb2.JournalLeg(account_id=name, amount=amount, currency="EUR")
            for name, amount in ((carrier, "5.00"), (alice, "-12.00"), (shop, "7.00"))
        ],
    )
    assert list(wallet.PostJournal(split).available) == ["5.00", "51.00", "44.00"]
    state = wallet.FreezeAccount(wallet_pb2.FreezeAccountRequest(account_id=carrier)).state
    assert state == wallet_pb2.ACCOUNT_STATE_FROZEN
    wallet.UnfreezeAccount(wallet_pb2.UnfreezeAccountRequest(account_id=carrier))
    wallet.Withdraw(
        wallet_pb2.WithdrawRequest(transaction_id=new_id(), account_id=carrier, amount="5.00", currency="EUR")
    )
    state = wallet.CloseAccount(wallet_pb2.CloseAccountRequest(account_id=carrier)).state
    assert state == wallet_pb2.ACCOUNT_STATE_CLOSED
    return alice, bought.transaction_id


def use_ledger(ledger: Any, account_id: str, purchase_id: str) -> None:
    """An auditor's look at what was done."""
    kinds: list[str] = []
    watch = ledger.WatchEntries(
        ledger_pb2.WatchEntriesRequest(account_ids=[account_id], from_beginning=True), timeout=30
    )
    for news in watch:
        kinds += [ledger_pb2.EntryKind.Name(entry.kind) for entry in news.entries]
        if kinds[-1:] == ["ENTRY_KIND_JOURNAL"]:
            break
    watch.cancel()
    done = ("OPEN", "DEPOSIT", "PURCHASE", "REFUND", "HOLD", "HOLD", "CAPTURE", "VOID", "JOURNAL")
    assert kinds == [f"ENTRY_KIND_{kind}" for kind in done]
    page = ledger.ListEntries(ledger_pb2.ListEntriesRequest(account_id=account_id, page_size=2))
    assert [(entry.delta, entry.balance) for entry in page.entries] == [
        ("-12.00", "51.00"),
        ("0.00", "63.00"),
    ]
    assert page.next_page_token
    found = ledger.GetTransfer(ledger_pb2.GetLedgerTransferRequest(transaction_id=purchase_id))
    assert (found.entries[0].account_id, found.entries[0].external_id) == (account_id, "1")
    balance = ledger.GetBalanceAt(ledger_pb2.GetBalanceAtRequest(account_id=account_id))
    assert (balance.available, balance.held) == ("51.00", "0.00")
    *_, last = ledger.ConsistencyCheck(ledger_pb2.ConsistencyCheckRequest())
    assert last.result.entries_archived >= len(done)


def use_cluster(operators: Any) -> None:
    """An operator's round."""
    topology = operators.GetTopology(cluster_pb2.GetTopologyRequest())
    assert sum(shard.slot_count for shard in topology.shards) == 16384
    members = operators.ListMembers(cluster_pb2.ListMembersRequest()).members
    kinds = {cluster_pb2.MemberKind.Name(member.kind) for member in members}
    parts = ("SHARD_NODE", "COORDINATOR", "ROUTER", "ARCHIVER")
    assert kinds == {f"MEMBER_KIND_{part}" for part in parts}
    assert operators.ListBacklogs(cluster_pb2.ListBacklogsRequest()).backlogs
    assert not operators.ListInDoubt(cluster_pb2.ListInDoubtRequest(minimum_age_ms=60_000)).truncated
    *_, last = operators.Verify(cluster_pb2.VerifyRequest())
    assert last.result.verdict in (cluster_pb2.VERDICT_BALANCED, cluster_pb2.VERDICT_BUSY)


def main() -> None:
    """Does it all against the router at the address given."""
    here = Path(__file__).parent
    assert Path(tallystick.__file__ or "").is_relative_to(here), "these are not the stubs made here"
    with grpc.insecure_channel(sys.argv[1]) as channel:
        wallet = Recorder(wallet_pb2_grpc.WalletServiceStub(channel))
        ledger = Recorder(ledger_pb2_grpc.LedgerServiceStub(channel))
        operators = Recorder(cluster_pb2_grpc.ClusterServiceStub(channel))
        use_wallet(wallet)
        use_ledger(ledger, *use_money(wallet))
        use_cluster(operators)
    recorders = {"WalletService": wallet, "LedgerService": ledger, "ClusterService": operators}
    print(json.dumps({name: one.called for name, one in recorders.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
