"""A wallet in memory that keeps the contract's promises to an import: outcomes by id, kept for ever."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from uuid import UUID

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
    Transfer,
    TransferResult,
)


@dataclass(slots=True)
class FakeWallet:
    """Balances by account, outcomes by id. ``unanswered`` ids get no outcome while they are in it."""

    balances: dict[str, Decimal] = field(default_factory=dict)
    currencies: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, TallystickError | None] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    # What was asked, in order: ids of transfers, ids of deposits.
    sent: list[str] = field(default_factory=list)
    deposits: list[str] = field(default_factory=list)

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
        if identity not in self.outcomes:
            self.outcomes[identity] = None
            self.balances[account_id] += Decimal(amount)
        return TransferResult(identity, Outcome.COMMITTED)

    async def transfers(
        self, batch: Iterable[Transfer], *, timeout_s: float | None = None
    ) -> list[TransferResult]:
        """Moves each, once an id."""
        return [self._transfer(transfer) for transfer in batch]

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
        if identity in self.unanswered:
            error: TallystickError | None = OutcomeUnknown("the shard is away", identity)
        elif identity in self.outcomes:
            error = self.outcomes[identity]
        else:
            error = self._refusal(transfer)
            self.outcomes[identity] = error
            if error is None:
                self.balances[transfer.from_account] -= Decimal(transfer.amount)
                self.balances[transfer.to_account] += Decimal(transfer.amount)
        return TransferResult(identity, error.outcome if error else Outcome.COMMITTED, error=error)

    def _refusal(self, transfer: Transfer) -> TallystickError | None:
        try:
            amount = Decimal(transfer.amount)
        except InvalidOperation:
            return InvalidArgument("is not a decimal number", field="amount")
        if {transfer.from_account, transfer.to_account} - self.balances.keys():
            return AccountNotFound("open it first")
        if self.balances[transfer.from_account] < amount:
            return InsufficientFunds("too little")
        return None
