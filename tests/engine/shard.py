"""A shard on a test's server: every command of the engine as a method."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from shard_node.cluster.slots import slot
from shard_node.contract import (
    AccountRecord,
    AccountTerms,
    Answer,
    Command,
    Kind,
    Outcome,
    pack_changes,
    pack_names,
    pack_terms,
    unpack_names,
    unpack_records,
)
from tests.engine.server import EngineServer

ENDLESS_MS: Final = 2**50
UNLIMITED: Final = 2**40


@dataclass(slots=True)
class EngineShard:
    """Commands to one server under a fence. Answers are those of the contract."""

    server: EngineServer
    name: str = "test/shard-0"
    epoch: int = 1
    fence: str = field(init=False)

    def __post_init__(self) -> None:
        self.fence = f"{self.name}/{self.epoch}"

    def raw(self, command: str, *arguments: Any) -> Any:
        """Any command, as it is."""
        return self.server.redis.execute_command(command, *arguments)

    def fenced(self, command: str, *arguments: Any) -> Any:
        """A command of the engine with the fence before its arguments."""
        return self.raw(f"tallystick.{command}", self.fence, *arguments)

    def bind(self, *, window_ms: int = ENDLESS_MS, backlog_limit: int = UNLIMITED) -> None:
        """Binds the server to this shard and epoch."""
        self.raw("tallystick.bind", self.name, self.epoch, window_ms, backlog_limit)

    def call(self, command: Command) -> Answer:
        """One command of the commit protocol."""
        return command.answer(self.raw(command.COMMAND, self.fence, *command.arguments()))

    def open(self, *accounts: AccountTerms) -> list[Outcome]:
        """Opens accounts; what came of each."""
        codes, _ = self.fenced("open", pack_terms(accounts))
        return [Outcome(code) for code in codes]

    def open_plain(self, *names: str, currency: str = "EUR") -> None:
        """Opens accounts without limits, in the slots of their names."""
        opened = self.open(*(AccountTerms(name, slot(name), currency) for name in names))
        assert set(opened) == {Outcome.COMMITTED}

    def set_state(self, *changes: tuple[str, Kind], dry: bool = False) -> list[Outcome]:
        """Freezes, unfreezes or closes accounts; what came of each."""
        codes, _ = self.fenced("set_state", int(dry), pack_changes(changes))
        return [Outcome(code) for code in codes]

    def accounts(self, *names: str) -> list[AccountRecord | None]:
        """The accounts with these names."""
        return unpack_records(self.fenced("accounts", pack_names(names)))

    def account(self, name: str) -> AccountRecord:
        """An account that is there."""
        [record] = self.accounts(name)
        assert record is not None
        return record

    def names(self, slots: Sequence[int]) -> list[str]:
        """All names in these slots."""
        found: list[str] = []
        cursor, left = b"", list(slots)
        while left:
            cursor, pages = self.fenced("names", cursor, struct.pack(f"<{len(left)}H", *left))
            for page in pages:
                found += unpack_names(page)
            left = left[len(pages) - bool(cursor) :]
        return found

    def chunks(self, number: int, size: int = 4096) -> Iterator[bytes]:
        """All that a slot holds."""
        cursor = b""
        while True:
            cursor, chunk = self.fenced("slot.export", number, cursor, size)
            yield chunk
            if not cursor:
                return

    def digest(self, number: int | None = None) -> int:
        """Of a slot, or of all that the shard holds."""
        digest: int = self.raw("tallystick.digest", *([] if number is None else [number]))
        return digest

    def info(self) -> dict[str, Any]:
        """What `tallystick.info` says."""
        return _named(self.raw("tallystick.info"))

    def described(self, account: str) -> dict[str, Any]:
        """What `tallystick.account` says of an account that is there."""
        return _named(self.raw("tallystick.account", account))

    def frames(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """The ledger's frames that were not trimmed: their ids and fields."""
        return cast("list[tuple[bytes, dict[bytes, bytes]]]", self.server.redis.xrange("ledger"))


def _named(reply: Any) -> dict[str, Any]:
    """A map, which is a flat list in the older protocol."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): value for name, value in pairs}
