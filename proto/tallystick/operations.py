"""What a client can do with money and accounts besides plain transfers: one unary call each.

Every call that moves money has a transaction id, given or made, and is sent again under it until there is
an answer or no time left, so it moves money once at the most.
"""

# ruff: noqa: PLR0913 - they are the fields of the contract's messages, most of them given by name

from abc import ABC, abstractmethod
from collections.abc import Iterable
from uuid import UUID

from tallystick import limits, wire
from tallystick import transport as wallet
from tallystick.transport import Method, RequestT, ResponseT
from tallystick.v1 import wallet_pb2
from tallystick.values import (
    Account,
    Amount,
    HoldResult,
    JournalLeg,
    JournalResult,
    TransferResult,
)


class MoneyOperations(ABC):
    """The operations of a client.

    All take `timeout_s`, the seconds in all, retries included (`settings.timeout_s` when None); those that
    have a `transaction_id` take a UUID, and make a new UUIDv7 when it is None. `reference` is up to 256
    bytes, other free texts up to 128, kept in the ledger only. With `validate_only` everything is checked
    and nothing moves: the outcome is VALID, or what the id was used for before, or the error is raised that
    the call would get now.
    """

    @abstractmethod
    async def _call(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        timeout_s: float | None,
        transaction_id: str = "",
    ) -> ResponseT:
        """Call until there is an answer, a refusal, or no time left."""

    @abstractmethod
    def _identity(self, transaction_id: str | UUID | None) -> str:
        """The id as text, a new one for None."""

    async def deposit(
        self,
        account_id: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        bank_transaction_id: str = "",
        initiated_by: str = "",
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> TransferResult:
        """Bring money from outside into an account. Arguments and errors as for `transfer`.

        Args:
            account_id: the account.
            amount: above zero, in the currency's unit.
            currency: the ISO 4217 code of the account.
            transaction_id: see `MoneyOperations`.
            reference: see `MoneyOperations`.
            bank_transaction_id: the bank's name for it.
            initiated_by: who had it done.
            validate_only: see `MoneyOperations`.
            timeout_s: see `MoneyOperations`.
        """
        request = limits.request(
            wallet_pb2.DepositRequest,
            transaction_id=self._identity(transaction_id),
            account_id=account_id,
            amount=wire.amount_text(amount),
            currency=currency,
            reference=reference,
            bank_transaction_id=bank_transaction_id,
            initiated_by=initiated_by,
            validate_only=validate_only,
        )
        return await self._move(wallet.DEPOSIT, request, timeout_s)

    async def withdraw(
        self,
        account_id: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        bank_transaction_id: str = "",
        initiated_by: str = "",
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> TransferResult:
        """Take money from an account to outside. Arguments and errors as for `deposit`."""
        request = limits.request(
            wallet_pb2.WithdrawRequest,
            transaction_id=self._identity(transaction_id),
            account_id=account_id,
            amount=wire.amount_text(amount),
            currency=currency,
            reference=reference,
            bank_transaction_id=bank_transaction_id,
            initiated_by=initiated_by,
            validate_only=validate_only,
        )
        return await self._move(wallet.WITHDRAW, request, timeout_s)

    async def purchase(
        self,
        customer_account: str,
        merchant_account: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        order_id: str = "",
        reference: str = "",
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> TransferResult:
        """A customer pays a merchant: a transfer that can be refunded, by its transaction_id."""
        request = limits.request(
            wallet_pb2.PurchaseRequest,
            transaction_id=self._identity(transaction_id),
            customer_account=customer_account,
            merchant_account=merchant_account,
            amount=wire.amount_text(amount),
            currency=currency,
            order_id=order_id,
            reference=reference,
            validate_only=validate_only,
        )
        return await self._move(wallet.PURCHASE, request, timeout_s)

    async def refund(
        self,
        purchase_transaction_id: str | UUID,
        customer_account: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> TransferResult:
        """Give money of a purchase back to the customer, in one or several refunds.

        Args:
            purchase_transaction_id: the purchase.
            customer_account: who paid it, and gets the money.
            amount: up to what was paid, less what was refunded before.
            currency: that of the purchase.
            transaction_id: the refund's own; see `MoneyOperations`.
            reference: see `MoneyOperations`.
            validate_only: see `MoneyOperations`.
            timeout_s: see `MoneyOperations`.

        Raises:
            RefundExceedsPurchase: together with the refunds before it, it is more than was paid.
            PurchaseNotFound: the customer made no such purchase.
            InsufficientFunds: the merchant's account has too little.
        """
        request = limits.request(
            wallet_pb2.RefundRequest,
            transaction_id=self._identity(transaction_id),
            purchase_transaction_id=wire.id_text(purchase_transaction_id, "purchase_transaction_id"),
            customer_account=customer_account,
            amount=wire.amount_text(amount),
            currency=currency,
            reference=reference,
            validate_only=validate_only,
        )
        return await self._move(wallet.REFUND, request, timeout_s)

    async def hold(
        self,
        account_id: str,
        amount: Amount,
        currency: str,
        *,
        life_seconds: int | None = None,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> HoldResult:
        """Reserve money of an account until it is captured or voided, or the hold's life is over.

        Args:
            account_id: whose money.
            amount: above zero, in the currency's unit.
            currency: the ISO 4217 code of the account.
            life_seconds: 1 second to 31 days; 7 days when None.
            transaction_id: names the hold; see `MoneyOperations`.
            reference: see `MoneyOperations`.
            validate_only: see `MoneyOperations`.
            timeout_s: see `MoneyOperations`.
        """
        request = limits.request(
            wallet_pb2.HoldRequest,
            transaction_id=self._identity(transaction_id),
            account_id=account_id,
            amount=wire.amount_text(amount),
            currency=currency,
            life_seconds=life_seconds,
            reference=reference,
            validate_only=validate_only,
        )
        identity = request.transaction_id
        return wire.hold_result(await self._call(wallet.HOLD, request, timeout_s, identity), request)

    async def capture(
        self,
        hold_transaction_id: str | UUID,
        account_id: str,
        to_account: str,
        amount: Amount,
        currency: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> TransferResult:
        """Pay from a hold, once; what it has left is available again.

        Args:
            hold_transaction_id: the hold.
            account_id: its account.
            to_account: who is paid.
            amount: up to the hold's.
            currency: that of the hold.
            transaction_id: the capture's own; see `MoneyOperations`.
            reference: see `MoneyOperations`.
            validate_only: see `MoneyOperations`.
            timeout_s: see `MoneyOperations`.

        Raises:
            HoldNotActive: it was captured or voided, or has expired, or was never made.
            CaptureExceedsHold: the amount is more than it reserves.
        """
        request = limits.request(
            wallet_pb2.CaptureRequest,
            transaction_id=self._identity(transaction_id),
            hold_transaction_id=wire.id_text(hold_transaction_id, "hold_transaction_id"),
            account_id=account_id,
            to_account=to_account,
            amount=wire.amount_text(amount),
            currency=currency,
            reference=reference,
            validate_only=validate_only,
        )
        return await self._move(wallet.CAPTURE, request, timeout_s)

    async def void(
        self,
        hold_transaction_id: str | UUID,
        account_id: str,
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> HoldResult:
        """End a hold; all of it is available again.

        Raises:
            HoldNotActive: it was captured or voided, or has expired, or was never made.
        """
        request = limits.request(
            wallet_pb2.VoidRequest,
            transaction_id=self._identity(transaction_id),
            hold_transaction_id=wire.id_text(hold_transaction_id, "hold_transaction_id"),
            account_id=account_id,
            reference=reference,
            validate_only=validate_only,
        )
        identity = request.transaction_id
        return wire.hold_result(await self._call(wallet.VOID, request, timeout_s, identity), request)

    async def post_journal(
        self,
        legs: Iterable[JournalLeg],
        *,
        transaction_id: str | UUID | None = None,
        reference: str = "",
        initiated_by: str = "",
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> JournalResult:
        """Make 2 to 100 legs that sum to zero in every currency: all of them happen, or none.

        A refusal names the leg it concerns by its place: `legs[3].account_id`.
        """
        request = limits.request(
            wallet_pb2.PostJournalRequest,
            transaction_id=self._identity(transaction_id),
            legs=[
                wire.journal_leg(leg, place)
                for place, leg in enumerate(limits.several(legs, "legs", limits.MAX_LEGS))
            ],
            reference=reference,
            initiated_by=initiated_by,
            validate_only=validate_only,
        )
        response = await self._call(wallet.POST_JOURNAL, request, timeout_s, request.transaction_id)
        return wire.journal_result(response, request)

    async def freeze_account(
        self, account_id: str, *, validate_only: bool = False, timeout_s: float | None = None
    ) -> Account:
        """Let an account neither pay nor be paid, until it is unfrozen. Done again, it does nothing."""
        request = limits.request(
            wallet_pb2.FreezeAccountRequest, account_id=account_id, validate_only=validate_only
        )
        return wire.account(await self._call(wallet.FREEZE_ACCOUNT, request, timeout_s))

    async def unfreeze_account(
        self, account_id: str, *, validate_only: bool = False, timeout_s: float | None = None
    ) -> Account:
        """Let an account take part again. Done again, it does nothing."""
        request = limits.request(
            wallet_pb2.UnfreezeAccountRequest, account_id=account_id, validate_only=validate_only
        )
        return wire.account(await self._call(wallet.UNFREEZE_ACCOUNT, request, timeout_s))

    async def close_account(
        self, account_id: str, *, validate_only: bool = False, timeout_s: float | None = None
    ) -> Account:
        """Close an account for ever.

        Raises:
            AccountNotEmpty: its balance is not zero, or a hold is active.
            AccountInUse: something is on its way to it; try again soon.
        """
        request = limits.request(
            wallet_pb2.CloseAccountRequest, account_id=account_id, validate_only=validate_only
        )
        return wire.account(await self._call(wallet.CLOSE_ACCOUNT, request, timeout_s))

    async def _move(
        self,
        method: Method[wire.MoneyRequestT, wallet_pb2.TransferResponse],
        request: wire.MoneyRequestT,
        timeout_s: float | None,
    ) -> TransferResult:
        identity = request.transaction_id
        response = await self._call(method, request, timeout_s, identity)
        return wire.unary_result(response, identity, validate_only=request.validate_only)
