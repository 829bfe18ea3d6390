"""A wallet in memory that keeps the contract's promises to an import: outcomes by id, and a ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from uuid import UUID

from deploy.importing.funding import Wallet
from deploy.importing.witness import Ledger
from tallystick import (
    Account,
    AccountExists,
    AccountNotFound,
    AccountResult,
    AccountState,
    Amount,
    InsufficientFunds,
    InvalidArgument,
    NewAccount,
    Outcome,
    OutcomeUnknown,
    TallystickError,
    TransactionIdExpired,
    TransactionIdReused,
    TransactionNotFound,
    Transfer,
    TransferRecord,
    TransferResult,
)
from tallystick.ledger import Entry, EntryKind

Terms = tuple[str, str, Decimal, str]


@dataclass(slots=True)
class FakeWallet(Wallet, Ledger):
    """Balances by account, outcomes by id and payer. ``unanswered`` ids get no outcome while they are in it.

    ``forget`` is the end of a deduplication window; ``is_archived`` is whether the ledger is complete.
    """

    balances: dict[str, Decimal] = field(default_factory=dict)
    currencies: dict[str, str] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], tuple[Terms, TallystickError | None]] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    # Carried out all the same: only the answer is lost.
    moved_unanswered: bool = False
    is_archived: bool = True
    # What was asked, in order: ids of transfers, ids of deposits, ids that the ledger was asked for.
    sent: list[str] = field(default_factory=list)
    deposits: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    expired: set[str] = field(default_factory=set)

    def forget(self) -> None:
        """No outcome is remembered any more, and UUIDv7 that were seen are refused."""
        self.expired.update(identity for identity, _ in self.outcomes if UUID(identity).version == 7)
        self.outcomes.clear()

    async def open_accounts(
        self, accounts: Iterable[NewAccount], *, timeout_s: float | None = None
    ) -> list[AccountResult]:
        """Opens each; a blank in the id or a currency of other than three letters is refused."""
        return [self._open(new) for new in accounts]

    async def deposit(
        self,
        account_id: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        timeout_s: float | None = None,
    ) -> TransferResult:
        """Adds to the balance, once an id."""
        identity = str(transaction_id)
        if Decimal(amount).as_tuple().exponent not in (0, -1, -2):
            raise InvalidArgument("has too many decimals", identity, "amount")
        self.deposits.append(identity)
        world = f"@world:{currency}:shard-0"
        terms = (world, account_id, Decimal(amount), reference)
        error = self._once(identity, account_id, terms, None)
        if error is not None:
            raise error
        return TransferResult(identity, Outcome.COMMITTED)

    async def transfers(
        self, batch: Iterable[Transfer], *, timeout_s: float | None = None
    ) -> list[TransferResult]:
        """Moves each, once an id."""
        return [self._transfer(transfer) for transfer in batch]

    async def get_transfer(
        self, transaction_id: str | UUID, from_account: str, *, timeout_s: float | None = None
    ) -> TransferRecord:
        """What is remembered."""
        found = self.outcomes.get((str(transaction_id), from_account))
        if found is None:
            raise TransactionNotFound("not remembered")
        (_, _, amount, _), error = found
        outcome = Outcome.COMMITTED if error is None else error.outcome
        return TransferRecord(str(transaction_id), from_account, outcome, amount, "EUR", datetime.now(UTC))

    async def transfer(
        self,
        transaction_id: str | UUID,
        from_account: str | None = None,
        *,
        wait_for: datetime | None = None,
        timeout_s: float | None = None,
    ) -> Sequence[Entry]:
        """The ledger's entries."""
        self.questions.append(str(transaction_id))
        assert wait_for is not None
        if not self.is_archived:
            raise OutcomeUnknown("the archive is behind")
        if not _is_uuid(str(transaction_id)):
            raise InvalidArgument("must be a UUID", field="transaction_id")
        found = [entry for entry in self.entries if entry.transaction_id == str(transaction_id)]
        if not found:
            raise TransactionNotFound("nothing of it is archived")
        return found

    def _open(self, new: NewAccount) -> AccountResult:
        if " " in new.account_id or len(new.currency) != 3:
            return AccountResult(new.account_id, error=InvalidArgument("no"))
        if self.currencies.setdefault(new.account_id, new.currency) != new.currency:
            return AccountResult(new.account_id, error=AccountExists("other currency"))
        balance = self.balances.setdefault(new.account_id, Decimal(0))
        return AccountResult(
            new.account_id,
            Account(new.account_id, new.currency, balance, Decimal(0), 0, AccountState.OPEN, Decimal(0)),
        )

    def _transfer(self, transfer: Transfer) -> TransferResult:
        identity = str(transfer.transaction_id)
        self.sent.append(identity)
        error: TallystickError | None = OutcomeUnknown("the shard is away", identity)
        if identity not in self.unanswered or self.moved_unanswered:
            found = self._carried_out(identity, transfer)
            error = error if identity in self.unanswered else found
        return TransferResult(identity, error.outcome if error else Outcome.COMMITTED, error=error)

    def _carried_out(self, identity: str, transfer: Transfer) -> TallystickError | None:
        try:
            amount = Decimal(transfer.amount)
        except InvalidOperation:
            return InvalidArgument("is not a decimal number", field="amount")
        refusal: TallystickError | None = None
        if {transfer.from_account, transfer.to_account} - self.balances.keys():
            refusal = AccountNotFound("open it first")
        elif self.balances[transfer.from_account] < amount:
            refusal = InsufficientFunds("too little")
        terms = (transfer.from_account, transfer.to_account, amount, transfer.reference)
        return self._once(identity, transfer.from_account, terms, refusal)

    def _once(
        self, identity: str, scope: str, terms: Terms, refusal: TallystickError | None
    ) -> TallystickError | None:
        known = self.outcomes.get((identity, scope))
        if known is not None:
            return known[1] if known[0] == terms else TransactionIdReused("no")
        if identity in self.expired:
            return TransactionIdExpired("too old")
        self.outcomes[identity, scope] = (terms, refusal)
        if refusal is None:
            self._move(identity, terms)
        return refusal

    def _move(self, identity: str, terms: Terms) -> None:
        payer, payee, amount, reference = terms
        self.balances[payer] = self.balances.get(payer, Decimal(0)) - amount
        self.balances[payee] += amount
        self.entries.append(
            Entry(
                account_id=payer,
                version=1,
                at=datetime.now(UTC),
                kind=EntryKind.TRANSFER,
                transaction_id=identity,
                counterparty=payee,
                currency="EUR",
                delta=-amount,
                held_delta=Decimal(0),
                balance=Decimal(0),
                reference=reference,
                external_id="",
                initiated_by="",
                related_transaction_id="",
                leg=0,
                leg_count=2,
                shard_id="shard-0",
            )
        )


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
