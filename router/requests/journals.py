"""What requests for journals must be, and the journals they become. No I/O.

Refunds and voids become journals in two steps: what their requests leave out (the merchant and the amount
of a purchase, the currency of a hold) has to be looked up in between, and is always found the same, so that
a request sent again becomes the same journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from router.requests.fields import BadField, packed_details, shown
from shard_node.contract import Effect, Journal, Kind, Leg
from shard_node.limits import MAX_HOLD_SECONDS, MAX_LEGS
from shard_node.money import to_text

if TYPE_CHECKING:
    from router.requests.fields import FieldReader
    from shard_node.cluster import Exponents
    from tallystick.v1 import wallet_pb2

DEFAULT_HOLD_SECONDS = 7 * 24 * 3600
MIN_LEGS = 2


@dataclass(frozen=True, slots=True)
class JournalRequest:
    """A journal to be carried out or checked.

    ``transaction_id`` is 16 bytes. ``fields`` name the part of the request that each leg's account came
    from; ``places`` are the legs' places in the request, where they stand there as a list.
    """

    transaction_id: bytes
    journal: Journal
    fields: tuple[str, ...]
    places: tuple[int, ...] = ()


class PurchaseTerms(Protocol):
    """What a refund must know of its purchase; amounts in minor units."""

    @property
    def merchant(self) -> str:
        """The account that was paid."""

    @property
    def amount_minor(self) -> int:
        """How much was paid."""

    @property
    def currency(self) -> str:
        """In which currency."""


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

    def journal(self, purchase: PurchaseTerms, merchant_slot: int) -> JournalRequest:
        """The refund of that purchase. The merchant is nowhere in the request but in the purchase."""
        journal = Journal(
            Kind.REFUND,
            (
                Leg(purchase.merchant, merchant_slot, Effect.DEBIT, self.amount_minor, self.currency),
                Leg(self.customer, self.customer_slot, Effect.REFUND, self.amount_minor, self.currency),
            ),
            self.details,
            self.purchase_id,
            purchase.amount_minor,
        )
        return JournalRequest(self.transaction_id, journal, ("purchase_transaction_id", "customer_account"))


@dataclass(frozen=True, slots=True)
class VoidRequest:
    """A void; its account's currency is still to be looked up."""

    transaction_id: bytes
    hold_id: bytes
    account: str
    slot: int
    details: bytes

    def journal(self, currency: str) -> JournalRequest:
        """The void in that currency."""
        leg = Leg(self.account, self.slot, Effect.VOID, 0, currency)
        journal = Journal(Kind.VOID, (leg,), self.details, self.hold_id)
        return JournalRequest(self.transaction_id, journal, ("account_id",))


class _ReadLeg(NamedTuple):
    place: int
    leg: Leg


class JournalReader:
    """Reads requests for journals. Every method raises BadField."""

    def __init__(self, fields: FieldReader) -> None:
        self._fields = fields

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
            packed_details(request.reference),
        )

    def hold(self, request: wallet_pb2.HoldRequest) -> JournalRequest:
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
        leg = Leg(request.account_id, slot, Effect.HOLD, amount, request.currency)
        journal = Journal(Kind.HOLD, (leg,), packed_details(request.reference), bound=life_seconds * 1000)
        return JournalRequest(transaction_id, journal, ("account_id",))

    def capture(self, request: wallet_pb2.CaptureRequest) -> JournalRequest:
        """A capture."""
        fields = self._fields
        transaction_id = fields.transaction_id(request.transaction_id)
        hold_id = fields.transaction_id(request.hold_transaction_id, "hold_transaction_id")
        holder_slot = fields.account_slot(request.account_id, "account_id")
        payee_slot = fields.account_slot(request.to_account, "to_account")
        if request.account_id == request.to_account:
            raise BadField("to_account", "is the same account as account_id: void the hold instead")
        amount, currency = fields.amount(request.amount, request.currency), request.currency
        legs = (
            Leg(request.account_id, holder_slot, Effect.CAPTURE, amount, currency),
            Leg(request.to_account, payee_slot, Effect.CREDIT, amount, currency),
        )
        journal = Journal(Kind.CAPTURE, legs, packed_details(request.reference), hold_id)
        return JournalRequest(transaction_id, journal, ("account_id", "to_account"))

    def void(self, request: wallet_pb2.VoidRequest) -> VoidRequest:
        """A void."""
        fields = self._fields
        return VoidRequest(
            fields.transaction_id(request.transaction_id),
            fields.transaction_id(request.hold_transaction_id, "hold_transaction_id"),
            request.account_id,
            fields.account_slot(request.account_id, "account_id"),
            packed_details(request.reference),
        )

    def journal(self, request: wallet_pb2.PostJournalRequest) -> JournalRequest:
        """A journal of the caller's own legs, in an order of ours: debits first, then by account.

        The first leg decides, and its account is the scope of the id. A caller that sends its legs again in
        another order must meet the same journal, not a second one.
        """
        transaction_id = self._fields.transaction_id(request.transaction_id)
        count = len(request.legs)
        if not MIN_LEGS <= count <= MAX_LEGS:
            raise BadField("legs", f"a journal has {MIN_LEGS} to {MAX_LEGS} legs, this one has {count}")
        read = [_ReadLeg(place, self._leg(place, leg)) for place, leg in enumerate(request.legs)]
        _check_accounts(read)
        _check_sums(read, self._fields.exponents)
        # There is a debit, for no amount is zero and the sums are.
        ordered = sorted(read, key=lambda one: (one.leg.effect is not Effect.DEBIT, one.leg.account))
        journal = Journal(
            Kind.JOURNAL,
            tuple(one.leg for one in ordered),
            packed_details(request.reference, request.initiated_by),
        )
        places = tuple(one.place for one in ordered)
        return JournalRequest(
            transaction_id, journal, tuple(f"legs[{place}].account_id" for place in places), places
        )

    def _leg(self, place: int, request: wallet_pb2.JournalLeg) -> Leg:
        name = f"legs[{place}]"
        if request.HasField("expected_version"):
            raise BadField(f"{name}.expected_version", "is not offered by this release: leave it out")
        slot = self._fields.account_slot(request.account_id, f"{name}.account_id")
        amount = request.amount
        minor = self._fields.amount(
            amount.removeprefix("-"), request.currency, f"{name}.amount", f"{name}.currency"
        )
        effect = Effect.DEBIT if amount.startswith("-") else Effect.CREDIT
        return Leg(request.account_id, slot, effect, minor, request.currency)


def _check_accounts(read: list[_ReadLeg]) -> None:
    places: dict[str, int] = {}
    for place, leg in read:
        before = places.setdefault(leg.account, place)
        if before != place:
            raise BadField(
                f"legs[{place}].account_id",
                f"{shown(leg.account)} is the account of legs[{before}] too: give each account one leg",
            )


def _check_sums(read: list[_ReadLeg], exponents: Exponents) -> None:
    sums: dict[str, int] = {}
    for _, leg in read:
        signed = -leg.amount_minor if leg.effect is Effect.DEBIT else leg.amount_minor
        sums[leg.currency] = sums.get(leg.currency, 0) + signed
    for currency, minor in sums.items():
        if minor:
            total = to_text(minor, exponents[currency])
            raise BadField("legs", f"must sum to zero in every currency; {currency} sums to {total}")
