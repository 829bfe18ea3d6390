"""How a server reads the bytes of a request: by protobuf at once and, only when that fails, field by field.

protobuf refuses a whole message for one text that is not UTF-8, and gRPC then ends the call with UNKNOWN,
which callers must take for "it may have happened". The careful reading says which field it is. It goes by the
contract's encoding (https://protobuf.dev/programming-guides/encoding). Of what it makes, nothing is carried
out but the rows of a batch in which it found nothing wrong.
"""

from __future__ import annotations

import inspect
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from shard_node.limits import MAX_BATCH, MAX_MESSAGE_BYTES
from shard_node.serving import statuses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    # Steps to a value: a field's name, or a place in a repeated field.
    Path = tuple[str | int, ...]

MessageT = TypeVar("MessageT", bound=Message)

NOT_UTF8: Final = "is not UTF-8 text"

# More fields than the largest batch has, which are eight for each transfer, itself included. While they are
# read carefully the event loop waits, for some 0.3 s where each is a text that is wrong, and 0.1 s where few
# are. protobuf needs some 130 bytes for a message that is empty.
MAX_FIELDS = 10 * MAX_BATCH
# So many have two bytes each at least: shorter messages need not be looked at.
_FEW_BYTES = 2 * MAX_FIELDS

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


@dataclass(frozen=True, slots=True)
class UndecodableError(Exception):
    """Bytes that are not the message they should be: which field (empty: the whole), and why."""

    field: str
    message: str
    oversized: bool = False

    def metadata(self) -> dict[str, str] | None:
        """The limit that was passed, for programs."""
        return {"limit_bytes": str(MAX_MESSAGE_BYTES)} if self.oversized else None


def decode(kind: type[MessageT], data: bytes) -> MessageT:
    """The message. Raises UndecodableError."""
    message, paths = decode_rows(kind, data)
    if paths:
        raise UndecodableError(_shown(paths[0]), NOT_UTF8)
    return message


def decode_rows(kind: type[MessageT], data: bytes) -> tuple[MessageT, list[Path]]:
    """The message, and where it has texts that are not UTF-8.

    Those end with U+FFFD in place of the first byte that is not and of all behind it: no id, amount or
    currency can be taken for another one, for none has that character. Raises UndecodableError when there is
    no message.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        why = f"the message has {len(data)} bytes, at most {MAX_MESSAGE_BYTES} are taken"
        raise UndecodableError("", why, oversized=True)
    if len(data) > _FEW_BYTES:
        _check_count(data)
    try:
        return kind.FromString(data), []
    except DecodeError as error:
        reason = str(error)
    reading = _Reading()
    try:
        return kind.FromString(reading.message(kind.DESCRIPTOR, data, ())), reading.paths
    except (ValueError, DecodeError):
        raise UndecodableError("", f"the message cannot be read. {reason}") from None


def reading(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    """A method that reads its requests with :func:`decode`, and answers INVALID_ARGUMENT where that fails.

    One that reads bytes itself is given them; one that streams requests stays as it is. A call that is ended
    lets go of all that its method had: gRPC's state of the call keeps the AbortError, which would keep the
    frames that it passed, and those the request, until Python next looks for cycles. A bare ``raise`` adds
    no frame to what was cleared.
    """
    if handler.request_streaming:
        return handler
    kind: Any = getattr(handler.request_deserializer, "__self__", None)
    read = None if kind else handler.request_deserializer
    answer: Any = handler.unary_unary or handler.unary_stream

    async def whole(data: Any, context: Any) -> Any:
        try:
            return await answer(await decoded(kind, data, context) if kind else data, context)
        except grpc.aio.AbortError as error:
            error.__traceback__ = error.__context__ = None
            raise

    async def stream(data: Any, context: Any) -> AsyncIterator[Any]:
        try:
            request = await decoded(kind, data, context) if kind else data
            async with aclosing(answer(request, context)) as messages:
                async for message in messages:
                    yield message
        except grpc.aio.AbortError as error:
            error.__traceback__ = error.__context__ = None
            raise

    if handler.response_streaming:
        # Those that are no generators write their stream themselves.
        made = stream if inspect.isasyncgenfunction(answer) else whole
        return grpc.unary_stream_rpc_method_handler(made, read, handler.response_serializer)
    return grpc.unary_unary_rpc_method_handler(whole, read, handler.response_serializer)


async def decoded(kind: type[MessageT], data: bytes, context: Any) -> MessageT:
    """The message, or the end of the call."""
    try:
        return decode(kind, data)
    except UndecodableError as error:
        await statuses.abort_invalid(context, error.field, error.message, error.metadata())


async def rows_decoded(kind: type[MessageT], data: bytes, context: Any) -> tuple[MessageT, dict[int, str]]:
    """A batch, and by row which of its fields is not UTF-8 text; or the end of the call.

    A row's own field is named, or none where the row itself is a text.
    """
    try:
        message, paths = decode_rows(kind, data)
    except UndecodableError as error:
        await statuses.abort_invalid(context, error.field, error.message, error.metadata())
    bad: dict[int, str] = {}
    for _, row, *field in paths:
        bad.setdefault(int(row), _shown(tuple(field)))
    return message, bad


def _check_count(data: bytes) -> None:
    """Bounds a message's own fields: protobuf may make messages of them, many times as large as their bytes.

    No request has messages in lists further inside. Raises UndecodableError when there are too many; bytes
    that are no message are left to protobuf.
    """
    at = 0
    try:
        for _ in range(MAX_FIELDS):
            tag, at = _varint(data, at)
            if tag & 7 == _LENGTH:
                length, at = _varint(data, at)
                at += length
            else:
                at = _behind(data, at, tag & 7)
            if at >= len(data):
                return
    except ValueError:
        return
    raise UndecodableError("", f"the message has more than {MAX_FIELDS} fields, no request has so many")


@cache
def _fields_of(descriptor: Any) -> dict[int, tuple[str, Any, bool]]:
    """The fields that can hold a text, by number: its name, its message (None for a text), is it repeated."""
    return {
        field.number: (field.name, field.message_type, field.is_repeated)
        for field in descriptor.fields
        if field.type in (field.TYPE_MESSAGE, field.TYPE_STRING)
    }


class _Reading:
    """Goes through a message once. ``paths`` are where it found texts that are not UTF-8."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self._fields_left = MAX_FIELDS

    def message(self, descriptor: Any, data: bytes, path: Path) -> bytes:
        """The same message with texts that are UTF-8. Raises ValueError when it is none."""
        fields = _fields_of(descriptor)
        pieces: list[bytes] = []
        places: dict[int, int] = {}
        at = copied = 0
        while at < len(data):
            self._fields_left -= 1
            if not self._fields_left:
                raise ValueError
            tag, at = _varint(data, at)
            if tag & 7 != _LENGTH:
                at = _behind(data, at, tag & 7)
                continue
            length, content_at = _varint(data, at)
            content = data[content_at : content_at + length]
            if len(content) != length:
                raise ValueError
            if (field := fields.get(tag >> 3)) is not None:
                name, kind, is_repeated = field
                step: Path = (name,)
                if is_repeated:
                    place = places[tag] = places.get(tag, -1) + 1
                    step = (name, place)
                mended = self._mended(kind, content, path, step)
                if mended is not content:
                    pieces += (data[copied:at], as_varint(len(mended)), mended)
                    copied = content_at + length
            at = content_at + length
        if not copied:
            return data
        pieces.append(data[copied:])
        return b"".join(pieces)

    def _mended(self, kind: Any, content: bytes, path: Path, step: Path) -> bytes:
        """The content of a field, itself when it is in order."""
        if kind is not None:
            return self.message(kind, content, path + step)
        if content.isascii():
            return content
        try:
            content.decode()
        except UnicodeDecodeError as error:
            self.paths.append(path + step)
            return content[: error.start] + _REPLACEMENT
        return content


def _shown(path: Path) -> str:
    """A path as refusals name it: ``legs[3].account_id``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number there, and where it ends. Raises ValueError."""
    first = data[at : at + 1]
    if first < b"\x80" and first:
        return first[0], at + 1
    value = 0
    for place, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError


def as_varint(value: int) -> bytes:
    """A number as messages have it, seven bits a byte."""
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _behind(data: bytes, at: int, wire_type: int) -> int:
    """Where a value that has no length before it ends. Raises ValueError."""
    if wire_type == _VARINT:
        return _varint(data, at)[1]
    end = at + {_FIXED64: 8, _FIXED32: 4}.get(wire_type, len(data))
    if end > len(data):
        raise ValueError
    return end
