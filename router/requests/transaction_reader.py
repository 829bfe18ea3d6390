"""What requests for transactions must be, and the transactions they become. No I/O.

Refunds and voids become transactions in two steps: what their requests leave out (the merchant and the amount
of a purchase, the currency of a hold) has to be looked up in between, and is always found the same, so that a
request sent again becomes the same transaction.

An ``expected_version`` is compared on the deciding shard. So it may be given for accounts in the slot of the
account that decides. Whether others are on its shard depends on the topology, and a request that is sent
again after a resize must not be refused when the first one was carried out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from router.requests.fields import BadField, FieldReader, packed_details, shown
from router.requests.transactions import TransactionRequest
from shard_node.cluster import Exponents
from shard_node.contract import NO_VERSION, Effect, Kind, Leg, Transaction
from shard_node.limits import MAX_HOLD_SECONDS, MAX_LEGS, MAX_MINOR
from shard_node.money import to_text
from tallystick.v1 import wallet_pb2

if TYPE_CHECKING:
    from shard_node.ledger.questions import Purchase

DEFAULT_HOLD_SECONDS = 7 * 24 * 3600
MIN_LEGS = 2


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """A refund whose purchase is still to be looked up."""

    transaction_id: bytes
    purchase_id: bytes
    customer: str
    customer_slot: int
    amount_minor: int
    currency: str
    details: bytes

    def transaction(self, purchase: Purchase, merchant_slot: int) -> TransactionRequest:
        """The refund of that purchase. The merchant is nowhere in the request but in the purchase."""
        legs = (
            Leg(purchase.merchant, Effect.DEBIT, self.amount_minor, self.currency),
            Leg(self.customer, Effect.REFUND, self.amount_minor, self.currency),
        )
        transaction = Transaction(
            self.transaction_id,
            Kind.REFUND,
            merchant_slot,
            legs,
            self.details,
            self.purchase_id,
            purchase.amount_minor,
        )
        return TransactionRequest(
            transaction,
            (merchant_slot, self.customer_slot),
            ("purchase_transaction_id", "customer_account"),
        )


@dataclass(frozen=True, slots=True)
class VoidRequest:
    """A void; its account's currency is still to be looked up."""

    transaction_id: bytes
    hold_id: bytes
    account: str
    slot: int
    details: bytes

    def transaction(self, currency: str) -> TransactionRequest:
        """The void in that currency."""
        leg = Leg(self.account, Effect.VOID, 0, currency)
        transaction = Transaction(
            self.transaction_id, Kind.VOID, self.slot, (leg,), self.details, self.hold_id
        )
        return TransactionRequest(transaction, (self.slot,), ("account_id",))


@dataclass(frozen=True, slots=True)
class ReadTransfers:
    """The requests of a batch, apart.

    ``batch`` is what is to be carried out, in order. By place in the request: ``bad`` is what does not fit,
    ``to_check`` what fits and is only to be checked.
    """

    batch: list[TransactionRequest]
    bad: dict[int, BadField]
    to_check: dict[int, TransactionRequest]


class _ReadLeg(NamedTuple):
    place: int
    leg: Leg
    slot: int


class TransactionReader:
    """Reads requests for transactions. Every method but :meth:`transfers` raises BadField."""

    def __init__(self, fields: FieldReader) -> None:
        self._fields = fields

    def transfers(self, requests: Iterable[wallet_pb2.TransferRequest]) -> ReadTransfers:
        """The requests of a batch, whatever is wrong with some of them."""
        read = ReadTransfers([], {}, {})
        for place, request in enumerate(requests):
            try:
                one = self.transfer(request)
            except BadField as bad:
                read.bad[place] = bad
                continue
            if request.validate_only:
                read.to_check[place] = one
            else:
                read.batch.append(one)
        return read

    def transfer(self, request: wallet_pb2.TransferRequest) -> TransactionRequest:
        """One transfer, to be carried out or checked."""
        fields = self._fields
        transaction_id = fields.transaction_id(request.transaction_id)
        payer, payee, currency = request.from_account, request.to_account, request.currency
        payer_slot = fields.account_slot(payer, "from_account")
        payee_slot = fields.account_slot(payee, "to_account")
        if payer == payee:
            raise BadField("to_account", "is the same account as from_account")
        minor = fields.amount(request.amount, currency)
        details = _details(request.reference)
        version = NO_VERSION
        if request.HasField("expected_version"):
            version = _version(request.expected_version)
        legs = (
            Leg(payer, Effect.DEBIT, minor, currency, 0, version),
            Leg(payee, Effect.CREDIT, minor, currency),
        )
        return TransactionRequest(
            Transaction(transaction_id, Kind.TRANSFER, payer_slot, legs, details),
            (payer_slot, payee_slot),
            ("from_account", "to_account"),
        )

    def deposit(self, request: wallet_pb2.DepositRequest) -> TransactionRequest:
        """Money from the system account of the account's own shard."""
        return self._with_world(Kind.DEPOSIT, request)

    def withdrawal(self, request: wallet_pb2.WithdrawRequest) -> TransactionRequest:
        """Money to the system account of the account's own shard."""
        return self._with_world(Kind.WITHDRAWAL, request)

    def purchase(self, request: wallet_pb2.PurchaseRequest) -> TransactionRequest:
        """A transfer from customer to merchant."""
        fields = self._fields
        transaction_id = fields.transaction_id(request.transaction_id)
        customer, merchant = request.customer_account, request.merchant_account
        slots = (
            fields.account_slot(customer, "customer_account"),
            fields.account_slot(merchant, "merchant_account"),
        )
        if customer == merchant:
            raise BadField("merchant_account", "is the same account as customer_account")
        minor = fields.amount(request.amount, request.currency)
        details = _details(request.reference, external_id=request.order_id, external_field="order_id")
        legs = (
            Leg(customer, Effect.DEBIT, minor, request.currency),
            Leg(merchant, Effect.CREDIT, minor, request.currency),
        )
        transaction = Transaction(transaction_id, Kind.PURCHASE, slots[0], legs, details)
        return TransactionRequest(transaction, slots, ("customer_account", "merchant_account"))

    def refund(self, request: wallet_pb2.RefundRequest) -> RefundRequest:
        """A refund."""
        fields = self._fields
        return RefundRequest(
            fields.transaction_id(request.transaction_id),
            fields.transaction_id(request.purchase_transaction_id, "purchase_transaction_id"),
            request.customer_account,
            fields.account_slot(request.customer_account, "customer_account"),
            fields.amount(request.amount, request.currency),
            request.currency,
            _details(request.reference),
        )

    def hold(self, request: wallet_pb2.HoldRequest) -> TransactionRequest:
        """A hold; its life is given to the shard in milliseconds."""
        fields = self._fields
        transaction_id = fields.transaction_id(request.transaction_id)
        slot = fields.account_slot(request.account_id, "account_id")
        amount = fields.amount(request.amount, request.currency)
        life_seconds = request.life_seconds if request.HasField("life_seconds") else DEFAULT_HOLD_SECONDS
        if not 1 <= life_seconds <= MAX_HOLD_SECONDS:
            raise BadField(
                "life_seconds",
                f"must be 1 to {MAX_HOLD_SECONDS} (31 days), or left out for 7 days, is {life_seconds}",
            )
        leg = Leg(request.account_id, Effect.HOLD, amount, request.currency)
        details = _details(request.reference)
        transaction = Transaction(transaction_id, Kind.HOLD, slot, (leg,), details, bound=life_seconds * 1000)
        return TransactionRequest(transaction, (slot,), ("account_id",))

    def capture(self, request: wallet_pb2.CaptureRequest) -> TransactionRequest:
        """A capture."""
        fields = self._fields
        transaction_id = fields.transaction_id(request.transaction_id)
        hold_id = fields.transaction_id(request.hold_transaction_id, "hold_transaction_id")
        slots = (
            fields.account_slot(request.account_id, "account_id"),
            fields.account_slot(request.to_account, "to_account"),
        )
        if request.account_id == request.to_account:
            raise BadField("to_account", "is the same account as account_id: void the hold instead")
        amount, currency = fields.amount(request.amount, request.currency), request.currency
        legs = (
            Leg(request.account_id, Effect.CAPTURE, amount, currency),
            Leg(request.to_account, Effect.CREDIT, amount, currency),
        )
        details = _details(request.reference)
        transaction = Transaction(transaction_id, Kind.CAPTURE, slots[0], legs, details, hold_id)
        return TransactionRequest(transaction, slots, ("account_id", "to_account"))

    def void(self, request: wallet_pb2.VoidRequest) -> VoidRequest:
        """A void."""
        fields = self._fields
        return VoidRequest(
            fields.transaction_id(request.transaction_id),
            fields.transaction_id(request.hold_transaction_id, "hold_transaction_id"),
            request.account_id,
            fields.account_slot(request.account_id, "account_id"),
            _details(request.reference),
        )

    def journal(self, request: wallet_pb2.PostJournalRequest) -> TransactionRequest:
        """A journal of the caller's own legs, in an order of ours: debits first, then by account.

        The first leg decides, and its account is the scope of the id. A caller that sends its legs again in
        another order must meet the same journal, not a second one.
        """
        transaction_id = self._fields.transaction_id(request.transaction_id)
        count = len(request.legs)
        if not MIN_LEGS <= count <= MAX_LEGS:
            raise BadField("legs", f"a journal has {MIN_LEGS} to {MAX_LEGS} legs, this one has {count}")
        read = [self._leg(place, leg) for place, leg in enumerate(request.legs)]
        _check_accounts(read)
        _check_sums(read, self._fields.exponents)
        # There is a debit, for no amount is zero and the sums are.
        ordered = sorted(read, key=lambda one: (one.leg.effect is not Effect.DEBIT, one.leg.account))
        _check_versions(ordered)
        transaction = Transaction(
            transaction_id,
            Kind.JOURNAL,
            ordered[0].slot,
            tuple(one.leg for one in ordered),
            _details(request.reference, request.initiated_by),
        )
        return TransactionRequest(
            transaction,
            tuple(one.slot for one in ordered),
            places=tuple(one.place for one in ordered),
        )

    def _leg(self, place: int, request: wallet_pb2.JournalLeg) -> _ReadLeg:
        amount, version = request.amount, NO_VERSION
        try:
            slot = self._fields.account_slot(request.account_id, "account_id")
            minor = self._fields.amount(amount.removeprefix("-"), request.currency)
            if request.HasField("expected_version"):
                version = _version(request.expected_version)
        except BadField as bad:
            raise replace(bad, field=f"legs[{place}].{bad.field}") from None
        effect = Effect.DEBIT if amount.startswith("-") else Effect.CREDIT
        leg = Leg(request.account_id, effect, minor, request.currency, 0, version)
        return _ReadLeg(place, leg, slot)

    def _with_world(
        self, kind: Kind, request: wallet_pb2.DepositRequest | wallet_pb2.WithdrawRequest
    ) -> TransactionRequest:
        """Between an account and its own shard's system account.

        Both count to the account's slot: the one call goes to its shard, whichever that is.
        """
        transaction_id = self._fields.transaction_id(request.transaction_id)
        account, currency = request.account_id, request.currency
        slot = self._fields.account_slot(account, "account_id")
        minor = self._fields.amount(request.amount, currency)
        details = _details(
            request.reference, request.initiated_by, request.bank_transaction_id, "bank_transaction_id"
        )
        world = f"@world:{currency}"
        payer, payee = (world, account) if kind is Kind.DEPOSIT else (account, world)
        legs = (Leg(payer, Effect.DEBIT, minor, currency), Leg(payee, Effect.CREDIT, minor, currency))
        transaction = Transaction(transaction_id, kind, slot, legs, details)
        return TransactionRequest(transaction, (slot, slot), ("account_id", "account_id"))


def _details(
    reference: str, initiated_by: str = "", external_id: str = "", external_field: str = ""
) -> bytes:
    """The free texts of a request, b"" where it has none. Raises BadField."""
    if not (reference or initiated_by or external_id):
        return b""
    return packed_details(reference, initiated_by, external_id, external_field)


def _version(version: int) -> int:
    # Shards take no larger one, and would refuse all that travels in the same bundle.
    if not 0 <= version <= MAX_MINOR:
        raise BadField("expected_version", f"must be 0 or more and at most {MAX_MINOR}, is {version}")
    return version


def _check_versions(ordered: list[_ReadLeg]) -> None:
    decides = ordered[0]
    for place, leg, slot in ordered:
        if leg.expected_version != NO_VERSION and slot != decides.slot:
            raise BadField(
                f"legs[{place}].expected_version",
                f"may be given for {shown(decides.leg.account)}, the debited account that comes first, and "
                f"for accounts in its slot, as those with its hash tag; {shown(leg.account)} is in another",
            )


def _check_accounts(read: list[_ReadLeg]) -> None:
    places: dict[str, int] = {}
    for place, leg, _ in read:
        before = places.setdefault(leg.account, place)
        if before != place:
            raise BadField(
                f"legs[{place}].account_id",
                f"{shown(leg.account)} is the account of legs[{before}] too: give each account one leg",
            )


def _check_sums(read: list[_ReadLeg], exponents: Exponents) -> None:
    sums: dict[str, int] = {}
    for _, leg, _ in read:
        signed = -leg.amount_minor if leg.effect is Effect.DEBIT else leg.amount_minor
        sums[leg.currency] = sums.get(leg.currency, 0) + signed
    for currency, minor in sums.items():
        if minor:
            total = to_text(minor, exponents[currency])
            raise BadField("legs", f"must sum to zero in every currency; {currency} sums to {total}")
