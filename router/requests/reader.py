"""What a request must be, and its form inside the cluster. No I/O.

The loop over a batch only tries; when a value does not fit, :func:`diagnose` goes through the
request again, slowly, to say which field it is, what its limit is and what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from xxhash import xxh3_64_digest

from router.requests.fields import (
    BadField,
    FieldReader,
    checked_id,
    minimum_balance,
    new_currency,
    packed_details,
    parse_id,
    positive,
    reference_bytes,
)
from shard_node.contract import BODY_HEAD, Kind, Row, Terms, Transfers, pack_body, transfer_key
from shard_node.errors import ExponentUnknownError
from shard_node.limits import MAX_REFERENCE_BYTES
from shard_node.money import to_minor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tallystick.v1 import wallet_pb2


_TRANSFER = int(Kind.TRANSFER)


class TransferLike(Protocol):
    """What TransferRequest holds."""

    transaction_id: str
    from_account: str
    to_account: str
    amount: str
    currency: str
    reference: str
    validate_only: bool

    def HasField(self, field_name: str, /) -> bool:  # noqa: N802 -- protobuf's
        """Whether an optional field was given."""


class ReadTransfers(NamedTuple):
    """The requests of a batch, apart. ``bad`` and ``to_check`` are by position in the request."""

    # All that is to be carried out, in order.
    batch: Transfers
    # What does not fit.
    bad: dict[int, BadField]
    # What fits and is only to be checked.
    to_check: dict[int, Row]


# A condition that is not checked must not be taken for one that holds.
_NO_VERSIONS = BadField("expected_version", "is not offered by this release: leave it out")


class AccountTerms(NamedTuple):
    """What an account is opened with; amounts in minor units, a maximum of 0 is none."""

    slot: int
    floor_minor: int
    maximum_balance_minor: int
    maximum_transfer_minor: int
    # The exponent that they were read by.
    digits: int


class RequestReader(FieldReader):
    """Reads requests about accounts, and those that are transfers of two legs."""

    def transfers(self, requests: Iterable[TransferLike]) -> ReadTransfers:
        """All that fit as a batch, in order, and by position the others.

        The hot loop of the router: columns are filled directly, and packing is spelled out, for a call
        a transfer is what it would mostly be made of.
        """
        slots, digits, pack_head, fingerprint = self.slots, self.exponents, BODY_HEAD.pack, xxh3_64_digest
        latest = self.latest_id()
        batch = Transfers([], [], [], [], [], [], [], [])
        keys, payers, payees, amounts = batch.keys, batch.payers, batch.payees, batch.amounts_minor
        currencies, bodies = batch.currencies, batch.bodies
        payer_slots, payee_slots = batch.payer_slots, batch.payee_slots
        read = ReadTransfers(batch, {}, {})
        for position, request in enumerate(requests):
            try:
                payer, payee, currency = request.from_account, request.to_account, request.currency
                payer_slot, payee_slot = slots[payer], slots[payee]
                amount = to_minor(request.amount, digits[currency])
                reference = request.reference.encode()
                transaction_id = parse_id(request.transaction_id, latest)
                if (
                    not amount
                    or payer == payee
                    or request.validate_only
                    or request.HasField("expected_version")
                    or len(reference) > MAX_REFERENCE_BYTES
                    or 0 in reference
                ):
                    raise ValueError  # noqa: TRY301 -- to where the request is looked at again
            except (ValueError, ExponentUnknownError):
                self._put_aside(position, request, latest, read)
                continue
            body = (
                pack_head(
                    amount, currency.encode(), payer_slot, payee_slot, _TRANSFER, len(payer), len(payee)
                )
                + (payer + payee).encode()
                + reference
            )
            keys.append(transaction_id + fingerprint(body))
            payers.append(payer)
            payees.append(payee)
            amounts.append(amount)
            currencies.append(currency)
            bodies.append(body)
            payer_slots.append(payer_slot)
            payee_slots.append(payee_slot)
        return read

    def transfer(self, request: TransferLike) -> Row:
        """One transfer, to be carried out or checked. Raises BadField."""
        read = self.transfers((request,))
        if read.bad:
            raise read.bad[0]
        return read.to_check[0] if read.to_check else read.batch.row(0)

    def deposit(self, request: wallet_pb2.DepositRequest) -> Row:
        """Money from the system account of the account's own shard. Raises BadField."""
        return self._world_transfer(Kind.DEPOSIT, request)

    def withdrawal(self, request: wallet_pb2.WithdrawRequest) -> Row:
        """Money to the system account of the account's own shard. Raises BadField."""
        return self._world_transfer(Kind.WITHDRAWAL, request)

    def purchase(self, request: wallet_pb2.PurchaseRequest) -> Row:
        """A transfer from customer to merchant. Raises BadField."""
        raw_id = self.transaction_id(request.transaction_id)
        payer, payee = request.customer_account, request.merchant_account
        payer_slot = self.account_slot(payer, "customer_account")
        payee_slot = self.account_slot(payee, "merchant_account")
        if payer == payee:
            raise BadField("merchant_account", "is the same account as customer_account")
        minor = self.amount(request.amount, request.currency)
        details = packed_details(request.reference, external_id=request.order_id, external_field="order_id")
        return _row(
            raw_id,
            Terms(minor, request.currency, payer_slot, payee_slot, Kind.PURCHASE, payer, payee, details),
        )

    def account(self, request: wallet_pb2.OpenAccountRequest) -> AccountTerms:
        """What an account is to be opened with. Raises BadField.

        A currency that is not known is read by ISO 4217: whoever opens stores that, and reads again.
        """
        slot, currency = self.account_slot(request.account_id, "account_id"), request.currency
        digits = self.exponents[currency] if currency in self.exponents else new_currency(currency)
        return AccountTerms(
            slot,
            minimum_balance(request.minimum_balance, digits) if request.HasField("minimum_balance") else 0,
            _maximum(request, "maximum_balance", digits),
            _maximum(request, "maximum_transfer", digits),
            digits,
        )

    def diagnose(self, request: TransferLike, latest: bytes) -> BadField | None:
        """What is wrong with a request, field by field."""
        try:
            checked_id(request.transaction_id, latest)
            self.account_slot(request.from_account, "from_account")
            self.account_slot(request.to_account, "to_account")
            if request.from_account == request.to_account:
                return BadField("to_account", "is the same account as from_account")
            self.amount(request.amount, request.currency)
            reference_bytes(request.reference)
        except BadField as bad:
            return bad
        return _NO_VERSIONS if request.HasField("expected_version") else None

    def _put_aside(self, position: int, request: TransferLike, latest: bytes, read: ReadTransfers) -> None:
        """A request that the hot loop left: it does not fit, or is only to be checked."""
        wrong = self.diagnose(request, latest)
        if wrong:
            read.bad[position] = wrong
            return
        if not request.validate_only:
            raise AssertionError(f"nothing is wrong with {request!r}")
        payer, payee, currency = request.from_account, request.to_account, request.currency
        read.to_check[position] = _row(
            checked_id(request.transaction_id, latest),
            Terms(
                self.amount(request.amount, currency),
                currency,
                self.slots[payer],
                self.slots[payee],
                Kind.TRANSFER,
                payer,
                payee,
                reference_bytes(request.reference),
            ),
        )

    def _world_transfer(
        self, kind: Kind, request: wallet_pb2.DepositRequest | wallet_pb2.WithdrawRequest
    ) -> Row:
        """Between an account and its own shard's system account.

        Both sides count to the account's slot: the one call goes to its shard, whichever that is.
        """
        raw_id = self.transaction_id(request.transaction_id)
        account, currency = request.account_id, request.currency
        account_slot = self.account_slot(account, "account_id")
        minor = self.amount(request.amount, currency)
        details = packed_details(
            request.reference, request.initiated_by, request.bank_transaction_id, "bank_transaction_id"
        )
        world = f"@world:{currency}"
        payer, payee = (world, account) if kind is Kind.DEPOSIT else (account, world)
        return _row(raw_id, Terms(minor, currency, account_slot, account_slot, kind, payer, payee, details))


def _maximum(request: wallet_pb2.OpenAccountRequest, field: str, digits: int) -> int:
    """An optional limit above zero, in minor units; 0 for none."""
    return positive(getattr(request, field), digits, field) if request.HasField(field) else 0


def columns(rows: list[Row]) -> Transfers:
    """Rows as a batch."""
    if not rows:
        return Transfers([], [], [], [], [], [], [], [])
    return Transfers(*map(list, zip(*rows, strict=True)))


def _row(transaction_id: bytes, t: Terms) -> Row:
    body = pack_body(
        t.amount_minor, t.currency, t.payer_slot, t.payee_slot, t.kind, t.payer, t.payee, t.details
    )
    key = transfer_key(transaction_id, body)
    return key, t.payer, t.payee, t.amount_minor, t.currency, body, t.payer_slot, t.payee_slot
