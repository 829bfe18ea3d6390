"""The contract's limits on what a caller gives, checked before anything is sent.

Single transfers share a batch, and a message has a largest size: what is too long, or no text at all, must
not get into one. So each row is bounded, and 8192 of the longest rows are far below a message's 16 MiB. What
a text says is the service's to judge.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tallystick.errors import InvalidArgument
from tallystick.v1 import ledger_pb2

MessageT = TypeVar("MessageT", bound=Message)
ValueT = TypeVar("ValueT")

MAX_ID_BYTES = 36
MAX_ACCOUNT_ID_BYTES = 64
MAX_CURRENCY_BYTES = 3
MAX_REFERENCE_BYTES = 256
MAX_LEGS = 100
MAX_WATCHED_ACCOUNTS = 1000

MAX_AMOUNT_BYTES = 64
"""Far above any amount (2^53 minor units), far below what would make a large text of 1E+999999."""

MAX_LEDGER_ACCOUNT_ID_BYTES = 160
"""The ledger also shows the system's accounts, whose ids end in the name of their shard."""

_MAX_TEXT_BYTES = 128

_MOST_BYTES = {
    "transaction_id": MAX_ID_BYTES,
    "purchase_transaction_id": MAX_ID_BYTES,
    "hold_transaction_id": MAX_ID_BYTES,
    "account_id": MAX_ACCOUNT_ID_BYTES,
    "prefix": MAX_ACCOUNT_ID_BYTES,
    "from_account": MAX_ACCOUNT_ID_BYTES,
    "to_account": MAX_ACCOUNT_ID_BYTES,
    "customer_account": MAX_ACCOUNT_ID_BYTES,
    "merchant_account": MAX_ACCOUNT_ID_BYTES,
    "amount": MAX_AMOUNT_BYTES,
    "minimum_balance": MAX_AMOUNT_BYTES,
    "maximum_balance": MAX_AMOUNT_BYTES,
    "maximum_transfer": MAX_AMOUNT_BYTES,
    "currency": MAX_CURRENCY_BYTES,
    "reference": MAX_REFERENCE_BYTES,
    "order_id": _MAX_TEXT_BYTES,
    "bank_transaction_id": _MAX_TEXT_BYTES,
    "initiated_by": _MAX_TEXT_BYTES,
}
_MOST_LEDGER_BYTES = _MOST_BYTES | {
    "account_id": MAX_LEDGER_ACCOUNT_ID_BYTES,
    "from_account": MAX_LEDGER_ACCOUNT_ID_BYTES,
}
_KINDS = {
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
    FieldDescriptor.CPPTYPE_INT32: "an int of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "an int of 64 bits",
    FieldDescriptor.CPPTYPE_STRING: "str",
}


def request(kind: type[MessageT], place: str = "", /, **fields: Any) -> MessageT:
    """A message to a router. The ledger service also knows the system's accounts.

    Args:
        kind: its class.
        place: stands before the fields' names in an error, such as "legs[2].".
        fields: its fields.

    Raises:
        InvalidArgument: a field is of another type, or longer than the contract allows.
    """
    most_bytes = _MOST_LEDGER_BYTES if kind.DESCRIPTOR.file is ledger_pb2.DESCRIPTOR else _MOST_BYTES
    try:
        for name, value in fields.items():
            if value is None:
                field = kind.DESCRIPTOR.fields_by_name[name]
                if not field.has_presence:
                    # protobuf would take it for the default: `validate_only=None` would move money.
                    raise _wrong_type(place + name, _wanted(field.cpp_type), value)
            elif (most := most_bytes.get(name)) is not None:
                text(value, place + name, most)
        return kind(**fields)
    except InvalidArgument as error:
        identity = fields.get("transaction_id", "")
        known = isinstance(identity, str) and len(identity) <= MAX_ID_BYTES
        raise error.concerning(identity if known else "") from None
    except (TypeError, ValueError):
        raise _diagnosis(kind, place, fields) from None


def text(value: object, field: str, most_bytes: int) -> str:
    """The value, a text of at most so many bytes of UTF-8.

    Raises:
        InvalidArgument: it is none.
    """
    if not isinstance(value, str):
        raise _wrong_type(field, "str", value)
    # No character has more than four bytes.
    if len(value) * 4 <= most_bytes and value.isascii():
        return value
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"has no form in UTF-8: {error.reason}", field=field) from None
    if size > most_bytes:
        raise InvalidArgument(f"must be at most {most_bytes} bytes of UTF-8, has {size}", field=field)
    return value


def several(values: Iterable[ValueT], field: str, most: int | None = None) -> list[ValueT]:
    """The values as a list.

    Raises:
        InvalidArgument: they are none, or one text, or more than `most`.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise _wrong_type(field, "several, such as a list", values)
    found = list(values)
    if most is not None and len(found) > most:
        raise InvalidArgument(f"at most {most} are taken, these are {len(found)}", field=field)
    return found


def chosen(values: Iterable[ValueT] | None, field: str, most: int | None = None) -> list[ValueT]:
    """What is asked for, as a list; none for None, which the service takes for all.

    Raises:
        InvalidArgument: as `several`, and when there are none: that is no question for all.
    """
    if values is None:
        return []
    found = several(values, field, most)
    if not found:
        raise InvalidArgument("is empty: leave it out for all", field=field)
    return found


def instance(value: object, kind: type[ValueT], field: str) -> ValueT:
    """The value, which is of that kind.

    Raises:
        InvalidArgument: it is not.
    """
    if not isinstance(value, kind):
        raise _wrong_type(field, f"a {kind.__name__}", value)
    return value


def seconds(value: object, field: str) -> float:
    """A time above zero.

    Raises:
        InvalidArgument: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidArgument(f"must be seconds above zero, is {value!r:.80}", field=field)
    return value


def _diagnosis(kind: type[Message], place: str, fields: dict[str, Any]) -> InvalidArgument:
    """Which field a message does not take, and why."""
    for name, value in fields.items():
        try:
            kind(**{name: value})
        except (TypeError, ValueError):
            return _wrong_type(place + name, _wanted(kind.DESCRIPTOR.fields_by_name[name].cpp_type), value)
    return InvalidArgument(f"no {kind.__name__} can be made of this")


def _wanted(cpp_type: int) -> str:
    return _KINDS.get(cpp_type, "of another type")


def _wrong_type(field: str, wanted: str, value: object) -> InvalidArgument:
    return InvalidArgument(f"must be {wanted}, is {type(value).__name__}: {value!r:.80}", field=field)
