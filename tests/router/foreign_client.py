"""A service that somebody else wrote, with stubs made from the .proto files and nothing of the project.

It is copied beside such stubs and run as a program of its own: ``foreign_client.py HOST:PORT``. It calls
every RPC of both services, and prints what it called as JSON.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import grpc

import tallystick
from tallystick.v1 import cluster_pb2, cluster_pb2_grpc, outcome_pb2, wallet_pb2, wallet_pb2_grpc


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


def use_cluster(operators: Any) -> None:
    """An operator's round."""
    topology = operators.GetTopology(cluster_pb2.GetTopologyRequest())
    assert sum(shard.slot_count for shard in topology.shards) == 16384
    members = operators.ListMembers(cluster_pb2.ListMembersRequest()).members
    kinds = {cluster_pb2.MemberKind.Name(member.kind) for member in members}
    assert kinds == {"MEMBER_KIND_SHARD_NODE", "MEMBER_KIND_COORDINATOR", "MEMBER_KIND_ROUTER"}
    assert not operators.ListInDoubt(cluster_pb2.ListInDoubtRequest(minimum_age_ms=60_000)).truncated
    *_, last = operators.Verify(cluster_pb2.VerifyRequest())
    assert last.result.verdict in (cluster_pb2.VERDICT_BALANCED, cluster_pb2.VERDICT_BUSY)


def main() -> None:
    """Does it all against the router at the address given."""
    here = Path(__file__).parent
    assert Path(tallystick.__file__ or "").is_relative_to(here), "these are not the stubs made here"
    with grpc.insecure_channel(sys.argv[1]) as channel:
        wallet = Recorder(wallet_pb2_grpc.WalletServiceStub(channel))
        operators = Recorder(cluster_pb2_grpc.ClusterServiceStub(channel))
        use_wallet(wallet)
        use_cluster(operators)
    print(json.dumps({"WalletService": wallet.called, "ClusterService": operators.called}))  # noqa: T201


if __name__ == "__main__":
    main()
