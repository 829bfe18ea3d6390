"""What one field of a request must be. No I/O."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from shard_node.cluster import package_exponent, slot
from shard_node.contract import Details, pack_details
from shard_node.errors import ExponentUnknownError
from shard_node.limits import MAX_ACCOUNT_ID_CHARS, MAX_MINOR, MAX_REFERENCE_BYTES, MAX_TEXT_BYTES
from shard_node.money import to_minor

if TYPE_CHECKING:
    from collections.abc import Callable

    from shard_node.cluster import Exponents

ACCOUNT_ID = re.compile(r"[A-Za-z0-9._:@{}\-]{1,64}")
CURRENCY = re.compile(r"[A-Z]{3}")

# Account ids whose slot is remembered; emptied when full. About 100 bytes each.
MAX_REMEMBERED_SLOTS = 2**18

# A UUIDv7 from further in the future than this comes from a broken clock. It would also make the
# shard count ids of that time as expired once it forgets it.
MAX_CLOCK_AHEAD_MS = 60_000


@dataclass(frozen=True, slots=True)
class BadField(Exception):  # noqa: N818 -- a value that is thrown, never one that ends a process
    """A request's field that does not fit: which, and why in a sentence."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@dataclass(frozen=True, slots=True)
class UnknownCurrency(BadField):
    """A currency whose exponent is not known here. It may be by now: ZooKeeper has to be asked anew."""

    currency: str


class Slots(dict[str, int]):
    """Slot by account id. Only valid ids of customers get in, so a hit is a validation too."""

    def __missing__(self, account_id: str) -> int:
        if not ACCOUNT_ID.fullmatch(account_id) or account_id[0] == "@":
            raise ValueError(account_id)
        if len(self) >= MAX_REMEMBERED_SLOTS:
            self.clear()
        found = self[account_id] = slot(account_id)
        return found


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class FieldReader:
    """Reads fields, amounts by the exponents given. ``clock_ms`` tells which UUIDv7 lie in the future.

    Each method raises BadField, naming ``field``.
    """

    def __init__(self, exponents: Exponents, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._clock_ms = clock_ms
        self.slots = Slots()
        self.exponents = exponents

    def transaction_id(self, text: str, field: str = "transaction_id") -> bytes:
        """The 16 bytes of an id. Raises BadField, naming ``field``."""
        return checked_id(text, self.latest_id(), field)

    def account_slot(self, account_id: str, field: str) -> int:
        """The slot of a customer's account id. Raises BadField, naming ``field``."""
        try:
            return self.slots[account_id]
        except ValueError:
            if account_id.startswith("@") and ACCOUNT_ID.fullmatch(account_id):
                raise BadField(field, 'an id that begins with "@" belongs to the system') from None
            raise BadField(
                field,
                f"must be 1-{MAX_ACCOUNT_ID_CHARS} characters of letters, digits and . _ : @ {{ }} -, "
                f"is {shown(account_id)}",
            ) from None

    def currency(self, code: str, field: str = "currency") -> int:
        """The exponent of a currency. Raises BadField, naming ``field``; UnknownCurrency if it may be new."""
        try:
            return self.exponents[code]
        except ExponentUnknownError:
            if not CURRENCY.fullmatch(code):
                raise BadField(field, _no_currency(code)) from None
            told = _no_currency(code)
            if package_exponent(code) is not None:
                told = f"no account was ever opened in {code}, so none can pay or be paid in it"
            raise UnknownCurrency(field, told, code) from None

    def amount(
        self, amount: str, currency: str, field: str = "amount", currency_field: str = "currency"
    ) -> int:
        """An amount above zero, in minor units. Raises BadField, naming one of the fields."""
        return positive(amount, self.currency(currency, currency_field), field)

    def latest_id(self) -> bytes:
        """The first six bytes of the youngest UUIDv7 that is taken now."""
        return (self._clock_ms() + MAX_CLOCK_AHEAD_MS).to_bytes(6)


def new_currency(code: str) -> int:
    """The exponent of a currency that the cluster has no account in, by ISO 4217. Raises BadField."""
    exponent = package_exponent(code) if CURRENCY.fullmatch(code) else None
    if exponent is None:
        raise BadField("currency", _no_currency(code))
    return exponent


def positive(text: str, digits: int, field: str) -> int:
    """An amount above zero, in minor units. Raises BadField, naming ``field``."""
    try:
        minor = to_minor(text, digits)
    except ValueError as error:
        raise BadField(field, f"{error}; is {shown(text)}") from None
    if minor == 0:
        raise BadField(field, "must be above zero")
    return minor


def minimum_balance(text: str, digits: int) -> int:
    """An account's floor in minor units: zero, or negative for a credit line. Raises BadField."""
    negative = text.startswith("-")
    try:
        minor = to_minor(text.removeprefix("-"), digits)
    except ValueError as error:
        raise BadField("minimum_balance", f"{error}; is {shown(text)}") from None
    if minor and not negative:
        raise BadField(
            "minimum_balance",
            f'must be "0" or negative (a credit line), is {shown(text)}: a new account has 0',
        )
    if minor == MAX_MINOR:
        raise BadField("minimum_balance", f"must be above -{MAX_MINOR} minor units, the system accounts' own")
    return -minor


def packed_details(
    reference: str, initiated_by: str = "", external_id: str = "", external_field: str = ""
) -> bytes:
    """The free texts of a request that is no plain transfer. Raises BadField."""
    return pack_details(
        Details(
            _text(external_id, external_field, MAX_TEXT_BYTES),
            _text(initiated_by, "initiated_by", MAX_TEXT_BYTES),
            reference_bytes(reference),
        )
    )


def shown(text: str) -> str:
    """A value as messages show it, however long it is."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def time_of_id(raw: bytes) -> int | None:
    """When a UUIDv7 of these 16 bytes was made (RFC 9562, 5.7), ms since 1970; None for any other id."""
    return int.from_bytes(raw[:6]) if raw[6] >> 4 == 7 else None


def parse_id(text: str, latest: bytes) -> bytes:
    """The bytes of a UUID. Raises ValueError."""
    if len(text) != 36 or text[8] != "-" or text[13] != "-" or text[18] != "-" or text[23] != "-":
        raise ValueError
    raw = bytes.fromhex(text.replace("-", ""))
    # fromhex skips spaces: only the length tells. The nil id is what a forgotten field looks like.
    if len(raw) != 16 or not any(raw) or (raw[6] >> 4 == 7 and raw[:6] > latest):
        raise ValueError
    return raw


def checked_id(text: str, latest: bytes, field: str = "transaction_id") -> bytes:
    """The bytes of a UUID. Raises BadField that says what is wrong with it."""
    try:
        return parse_id(text, latest)
    except ValueError:
        pass
    if not text:
        raise BadField(
            field, "is missing: a UUID such as 0192e4a6-7c5e-7d3a-8f1b-2c3d4e5f6a7b, best a UUIDv7"
        )
    try:
        raw = UUID(text)
    except ValueError:
        raise BadField(field, f"must be a UUID, 8-4-4-4-12 hexadecimal digits, is {shown(text)}") from None
    if str(raw) != text.lower():
        raise BadField(field, f"must be written as {raw}, is {shown(text)}")
    if raw.int == 0:
        raise BadField(field, "is the nil UUID")
    raise BadField(
        field,
        f"is a UUIDv7 of more than {MAX_CLOCK_AHEAD_MS // 1000} s in the future: is that clock right?",
    )


def reference_bytes(text: str) -> bytes:
    """A reference as it is kept. Raises BadField."""
    return _text(text, "reference", MAX_REFERENCE_BYTES)


def _no_currency(code: str) -> str:
    return f'must be an ISO 4217 code with minor units, such as "EUR", is {shown(code)}'


def _text(text: str, field: str, most_bytes: int) -> bytes:
    raw = text.encode()
    if len(raw) > most_bytes:
        raise BadField(field, f"must be at most {most_bytes} bytes of UTF-8, has {len(raw)}")
    if b"\0" in raw:
        # PostgreSQL's text cannot hold one, and the ledger may be there.
        raise BadField(field, f"must not hold the character NUL (U+0000), has one at byte {raw.index(0)}")
    return raw
