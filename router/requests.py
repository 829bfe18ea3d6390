"""What a request must be, and its form inside the cluster. No I/O.

The loop over a batch only tries; when a value does not fit, :func:`diagnose` goes through the
request again, slowly, to say which field it is, what its limit is and what is wrong.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from xxhash import xxh3_64_digest

from coordinator.money import decimals, to_minor
from shard_node.limits import MAX_ACCOUNT_ID_CHARS, MAX_MINOR, MAX_REFERENCE_BYTES
from shard_node.slots import slot
from shard_node.transfers import BODY_HEAD, Kind, Row, Transfers, pack_body, transfer_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ACCOUNT_ID = re.compile(r"[A-Za-z0-9._:@{}\-]{1,64}")
_CURRENCY = re.compile(r"[A-Z]{3}")

# Account ids whose slot is remembered; emptied when full. About 100 bytes each.
MAX_REMEMBERED_SLOTS = 2**18

# A UUIDv7 from further in the future than this comes from a broken clock. It would also make the
# shard count ids of that time as expired once it forgets it.
MAX_CLOCK_AHEAD_MS = 60_000

_TRANSFER = int(Kind.TRANSFER)


class TransferLike(Protocol):
    """What TransferRequest holds."""

    transaction_id: str
    from_account: str
    to_account: str
    amount: str
    currency: str
    reference: str


@dataclass(frozen=True, slots=True)
class BadField(Exception):  # noqa: N818 -- a value that is thrown, never one that ends a process
    """A request's field that does not fit: which, and why in a sentence."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class _Slots(dict[str, int]):
    """Slot by account id. Only valid ids of customers get in, so a hit is a validation too."""

    def __missing__(self, account_id: str) -> int:
        if not _ACCOUNT_ID.fullmatch(account_id) or account_id[0] == "@":
            raise ValueError(account_id)
        if len(self) >= MAX_REMEMBERED_SLOTS:
            self.clear()
        found = self[account_id] = slot(account_id)
        return found


class _Decimals(dict[str, int]):
    """Decimals by currency code; only codes that ISO 4217 gives decimals get in."""

    def __missing__(self, currency: str) -> int:
        digits = decimals(currency) if _CURRENCY.fullmatch(currency) else None
        if digits is None:
            raise ValueError(currency)
        self[currency] = digits
        return digits


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class RequestReader:
    """Reads requests. ``clock_ms`` tells which UUIDv7 lie in the future."""

    def __init__(self, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._clock_ms = clock_ms
        self._slots = _Slots()
        self._decimals = _Decimals()

    def transfers(self, requests: Iterable[TransferLike]) -> tuple[Transfers, dict[int, BadField]]:
        """All that fit as a batch, in order, and by position what is wrong with the others.

        The hot loop of the router: columns are filled directly, and packing is spelled out, for a call
        a transfer is what it would mostly be made of.
        """
        slots, digits, pack_head, fingerprint = self._slots, self._decimals, BODY_HEAD.pack, xxh3_64_digest
        latest = self._latest_id()
        batch = Transfers([], [], [], [], [], [], [], [])
        keys, payers, payees, amounts = batch.keys, batch.payers, batch.payees, batch.amounts_minor
        currencies, bodies = batch.currencies, batch.bodies
        payer_slots, payee_slots = batch.payer_slots, batch.payee_slots
        bad: dict[int, BadField] = {}
        for position, request in enumerate(requests):
            try:
                payer, payee, currency = request.from_account, request.to_account, request.currency
                payer_slot, payee_slot = slots[payer], slots[payee]
                amount = to_minor(request.amount, digits[currency])
                reference = request.reference.encode()
                transaction_id = _parse_id(request.transaction_id, latest)
                if not amount or payer == payee or len(reference) > MAX_REFERENCE_BYTES:
                    raise ValueError  # noqa: TRY301 -- to where the request is looked at again
            except ValueError:
                bad[position] = self.diagnose(request, latest)
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
        return batch, bad

    def transfer(self, request: TransferLike) -> Row:
        """One transfer. Raises BadField."""
        batch, bad = self.transfers((request,))
        if bad:
            raise bad[0]
        return batch.row(0)

    def world_transfer(
        self, kind: Kind, transaction_id: str, account_id: str, amount: str, currency: str, reference: str
    ) -> Row:
        """A deposit or withdrawal, between the account and its own shard's system account.

        Both sides count to the account's slot: the one call goes to its shard, whichever that is.
        Raises BadField.
        """
        raw_id = self.transaction_id(transaction_id)
        account_slot = self.account_slot(account_id, "account_id")
        minor = self._amount(amount, currency)
        raw_reference = _reference(reference)
        world = f"@world:{currency}"
        payer, payee = (world, account_id) if kind is Kind.DEPOSIT else (account_id, world)
        body = pack_body(minor, currency, account_slot, account_slot, kind, payer, payee, raw_reference)
        return transfer_key(raw_id, body), payer, payee, minor, currency, body, account_slot, account_slot

    def diagnose(self, request: TransferLike, latest: bytes) -> BadField:
        """What is wrong with a request that did not fit, field by field."""
        try:
            _checked_id(request.transaction_id, latest)
            self.account_slot(request.from_account, "from_account")
            self.account_slot(request.to_account, "to_account")
            if request.from_account == request.to_account:
                return BadField("to_account", "is the same account as from_account")
            self._amount(request.amount, request.currency)
            _reference(request.reference)
        except BadField as bad:
            return bad
        raise AssertionError(f"nothing is wrong with {request!r}")

    def transaction_id(self, text: str) -> bytes:
        """The 16 bytes of an id. Raises BadField."""
        return _checked_id(text, self._latest_id())

    def account_slot(self, account_id: str, field: str) -> int:
        """The slot of a customer's account id. Raises BadField, naming ``field``."""
        try:
            return self._slots[account_id]
        except ValueError:
            if account_id.startswith("@") and _ACCOUNT_ID.fullmatch(account_id):
                raise BadField(field, 'an id that begins with "@" belongs to the system') from None
            raise BadField(
                field,
                f"must be 1-{MAX_ACCOUNT_ID_CHARS} characters of letters, digits and . _ : @ {{ }} -, "
                f"is {_shown(account_id)}",
            ) from None

    def currency(self, code: str) -> int:
        """The decimals of a currency. Raises BadField."""
        try:
            return self._decimals[code]
        except ValueError:
            raise BadField(
                "currency", f'must be an ISO 4217 code with minor units, such as "EUR", is {_shown(code)}'
            ) from None

    def minimum_balance(self, text: str, currency: str) -> int:
        """An account's floor in minor units: zero, or negative for a credit line. Raises BadField."""
        digits = self.currency(currency)
        if not text:
            return 0
        negative = text.startswith("-")
        try:
            minor = to_minor(text.removeprefix("-"), digits)
        except ValueError as error:
            raise BadField("minimum_balance", f"{error}; is {_shown(text)}") from None
        if minor and not negative:
            raise BadField(
                "minimum_balance",
                f'must be "0" or negative (a credit line), is {_shown(text)}: a new account has 0',
            )
        if minor == MAX_MINOR:
            raise BadField(
                "minimum_balance", f"must be above -{MAX_MINOR} minor units, the system accounts' own"
            )
        return -minor

    def _amount(self, text: str, currency: str) -> int:
        digits = self.currency(currency)
        try:
            minor = to_minor(text, digits)
        except ValueError as error:
            raise BadField("amount", f"{error}; is {_shown(text)}") from None
        if minor == 0:
            raise BadField("amount", "must be above zero")
        return minor

    def _latest_id(self) -> bytes:
        return (self._clock_ms() + MAX_CLOCK_AHEAD_MS).to_bytes(6)


def columns(rows: list[Row]) -> Transfers:
    """Rows as a batch."""
    if not rows:
        return Transfers([], [], [], [], [], [], [], [])
    return Transfers(*map(list, zip(*rows, strict=True)))


def _parse_id(text: str, latest: bytes) -> bytes:
    """The bytes of a UUID. Raises ValueError."""
    if len(text) != 36 or text[8] != "-" or text[13] != "-" or text[18] != "-" or text[23] != "-":
        raise ValueError
    raw = bytes.fromhex(text.replace("-", ""))
    # fromhex skips spaces: only the length tells. The nil id is what a forgotten field looks like.
    if len(raw) != 16 or not any(raw) or (raw[6] >> 4 == 7 and raw[:6] > latest):
        raise ValueError
    return raw


def _checked_id(text: str, latest: bytes) -> bytes:
    try:
        return _parse_id(text, latest)
    except ValueError:
        pass
    field = "transaction_id"
    if not text:
        raise BadField(
            field, "is missing: a UUID such as 0192e4a6-7c5e-7d3a-8f1b-2c3d4e5f6a7b, best a UUIDv7"
        )
    try:
        raw = UUID(text)
    except ValueError:
        raise BadField(field, f"must be a UUID, 8-4-4-4-12 hexadecimal digits, is {_shown(text)}") from None
    if str(raw) != text.lower():
        raise BadField(field, f"must be written as {raw}, is {_shown(text)}")
    if raw.int == 0:
        raise BadField(field, "is the nil UUID")
    raise BadField(
        field,
        f"is a UUIDv7 of more than {MAX_CLOCK_AHEAD_MS // 1000} s in the future: is that clock right?",
    )


def _reference(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > MAX_REFERENCE_BYTES:
        raise BadField("reference", f"must be at most {MAX_REFERENCE_BYTES} bytes of UTF-8, has {len(raw)}")
    return raw


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
