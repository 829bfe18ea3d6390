"""The demo's money operations: deposits, purchases and refunds, holds in all their ends, a journal.

Each line that it prints was answered by the cluster, and each answer is compared with the one that it must
be; in the end every account is compared with what the lines add up to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from deploy.demo.steps import must, wait_until
from deploy.terminal import Table, doubtful, good, out
from shard_node.cluster import slot
from tallystick import (
    HoldResult,
    JournalLeg,
    JournalResult,
    Outcome,
    Refused,
    SyncClient,
    TransferResult,
    new_transaction_id,
)
from tallystick.v1 import cluster_pb2

# A hold of a second is over after two, but a busy machine may be slow to say so.
EXPIRY_SECONDS = 15.0
_EUR = "EUR"
_Answer = TransferResult | HoldResult | JournalResult


@dataclass(frozen=True, slots=True)
class Cast:
    """Accounts for the story, the first three on three different shards."""

    customer: str
    merchant: str
    carrier: str
    fees: str


def choose_cast(topology: cluster_pb2.Topology) -> Cast:
    """Names whose accounts are on different shards, as the topology has them."""

    def shard_of(account_id: str) -> str:
        number = slot(account_id)
        return next(s.shard_id for s in topology.shards if any(r.first <= number <= r.last for r in s.slots))

    taken: set[str] = set()

    def pick(role: str) -> str:
        candidates = (f"{role}-{number}" for number in range(1000))
        name = next(name for name in candidates if shard_of(name) not in taken)
        taken.add(shard_of(name))
        return name

    customer, merchant, carrier = pick("ada"), pick("bakery"), pick("carrier")
    return Cast(customer, merchant, carrier, "fees-0")


@dataclass(slots=True)
class MoneyDemo:
    """Runs the operations once, and keeps what every account must have."""

    client: SyncClient
    cast: Cast
    expected: dict[str, Decimal] = field(default_factory=dict)
    _table: Table = field(
        default_factory=lambda: Table("operation", "amount", "outcome", "what it did", right={"amount"})
    )

    def run(self) -> None:
        """All operations. Raises DemoError at the first that does not end as it must."""
        self._open_and_deposit()
        self._purchase_and_refund()
        self._hold()
        self._journal()
        out.table(self._table)
        self._compare()

    def _open_and_deposit(self) -> None:
        cast, client = self.cast, self.client
        for account_id in (cast.customer, cast.merchant, cast.carrier, cast.fees):
            client.open_account(account_id, _EUR)
            self.expected[account_id] = Decimal(0)
        self._try(
            lambda: client.deposit(
                cast.customer, "500.00", _EUR, bank_transaction_id="SEPA-2291", reference="salary"
            ),
            ("deposit", "500.00"),
            to=cast.customer,
        )
        self._try(
            lambda: client.withdraw(cast.customer, "20.00", _EUR, reference="cash"),
            ("withdraw", "20.00"),
            of=cast.customer,
        )

    def _purchase_and_refund(self) -> None:
        cast, client = self.cast, self.client
        purchase_id, refund_id = new_transaction_id(), new_transaction_id()
        self._try(
            lambda: client.purchase(
                cast.customer,
                cast.merchant,
                "80.00",
                _EUR,
                transaction_id=purchase_id,
                order_id="order-17",
                reference="cake",
            ),
            ("purchase", "80.00"),
            of=cast.customer,
            to=cast.merchant,
        )

        def refund(amount: str, transaction_id: str | None = None) -> TransferResult:
            return client.refund(
                purchase_id, cast.customer, amount, _EUR, transaction_id=transaction_id, reference="too sweet"
            )

        self._try(lambda: refund("30.00", refund_id), ("refund", "30.00"), of=cast.merchant, to=cast.customer)
        self._try(lambda: refund("30.00", refund_id), ("refund", "30.00"), "the same id again moves nothing")
        self._try(
            lambda: refund("50.01"),
            ("refund", "50.01"),
            "30.00 + 50.01 is more than was paid",
            Outcome.REFUND_EXCEEDS_PURCHASE,
        )
        self._try(lambda: refund("50.00"), ("refund", "50.00"), of=cast.merchant, to=cast.customer)

    def _hold(self) -> None:
        cast, client = self.cast, self.client

        def hold(amount: str, reference: str, life_seconds: int = 3600) -> str:
            hold_id = new_transaction_id()
            self._try(
                lambda: client.hold(
                    cast.customer,
                    amount,
                    _EUR,
                    life_seconds=life_seconds,
                    transaction_id=hold_id,
                    reference=reference,
                ),
                ("hold", amount),
                f"{reference}: from available to held",
            )
            held = client.get_account(cast.customer).held
            must(held == Decimal(amount), f"{held} is held, not {amount}")
            return hold_id

        def capture(hold_id: str, amount: str) -> TransferResult:
            return client.capture(hold_id, cast.customer, cast.merchant, amount, _EUR)

        hotel = hold("120.00", "hotel")
        self._try(
            lambda: capture(hotel, "75.50"),
            ("capture", "75.50"),
            "the rest is available again",
            of=cast.customer,
            to=cast.merchant,
        )
        self._try(lambda: capture(hotel, "10.00"), ("capture", "10.00"), "once only", Outcome.HOLD_NOT_ACTIVE)
        car = hold("60.00", "car")
        self._try(lambda: client.void(car, cast.customer), ("void", "60.00"), "all is available again")
        table = hold("15.00", "table", life_seconds=1)
        waited = wait_until(
            lambda: not client.get_account(cast.customer).held, EXPIRY_SECONDS, "the hold did not expire"
        )
        self._table.add_row("expiry", "15.00", "", f"by itself: seen after {waited:.1f} s")
        self._try(lambda: capture(table, "15.00"), ("capture", "15.00"), "too late", Outcome.HOLD_NOT_ACTIVE)

    def _journal(self) -> None:
        cast, client = self.cast, self.client
        legs = {cast.customer: "-100.00", cast.merchant: "82.00", cast.carrier: "15.00", cast.fees: "3.00"}

        def post(changes: dict[str, str]) -> JournalResult:
            return client.post_journal(
                [JournalLeg(account_id, amount, _EUR) for account_id, amount in changes.items()],
                reference="order 18, delivered",
                initiated_by="checkout",
            )

        self._try(lambda: post(legs), ("journal", "100.00"), "four legs on three shards")
        for account_id, amount in legs.items():
            self.expected[account_id] += Decimal(amount)
        self._try(
            lambda: post(legs | {cast.fees: "3.01"}),
            ("journal", "100.00"),
            "its legs do not sum to zero",
            Outcome.INVALID_ARGUMENT,
        )

    def _try(
        self,
        call: Callable[[], _Answer],
        what: tuple[str, str],
        remark: str = "",
        outcome: Outcome = Outcome.COMMITTED,
        *,
        of: str = "",
        to: str = "",
    ) -> None:
        """Carries out ``what`` (operation and amount), checks its outcome, notes what it must have moved."""
        operation, amount = what
        try:
            got = call().outcome
        except Refused as refusal:
            got = refusal.outcome
        must(got is outcome, f"{operation} {amount} ended as {got.name}, not {outcome.name}")
        if of:
            self.expected[of] -= Decimal(amount)
        if to:
            self.expected[to] += Decimal(amount)
        moved = f"{of or 'outside'} → {to or 'outside'}" if of or to else ""
        styled = good if got is Outcome.COMMITTED else doubtful
        told = ", ".join(filter(None, (moved, remark)))
        self._table.add_row(operation, amount, styled(got.name), told)

    def _compare(self) -> None:
        for account_id, balance in self.expected.items():
            account = self.client.get_account(account_id)
            must(
                account.available == balance and not account.held,
                f"{account_id} has {account.available}, {account.held} held, and not {balance}",
            )
        out.print("each of these accounts has exactly what the lines above add up to")
