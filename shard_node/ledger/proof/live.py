"""The live side of an audit: accounts as shards have them, and what waits there to be archived."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shard_node.ledger.proof.findings import Findings, Rule
from shard_node.ledger.store import decode, stream_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shard_node.client import LedgerState, Shard
    from shard_node.contract import AccountState
    from shard_node.ledger.questions import Head
    from shard_node.ledger.store import ArchivedShard, Row

# Frames read at once. Each holds what one call did, up to 16384 ledger entries.
STREAM_COUNT: Final = 8


@dataclass(frozen=True, slots=True)
class LiveAccount:
    """An account as its shard has it, by the name that the ledger gives it. Minor units.

    ``held_minor`` is without what only an attempt in doubt reserves: of that the ledger does not know yet.
    """

    account_id: str
    shard_id: str
    balance_minor: int
    held_minor: int
    version: int
    state: AccountState
    currency: str
    # minimum_balance, maximum_balance, maximum_transfer
    limits: tuple[int, int, int]

    @property
    def is_system(self) -> bool:
        """Whether it belongs to the system: no OPEN entry tells of its limits."""
        return self.account_id.startswith("@")


def limits_of(attributes: str) -> tuple[int, int, int] | None:
    """minimum_balance, maximum_balance and maximum_transfer from an OPEN entry; None when unreadable."""
    try:
        read = json.loads(attributes)
        return int(read["minimum_balance"]), int(read["maximum_balance"]), int(read["maximum_transfer"])
    except (ValueError, KeyError, TypeError):
        return None


async def live_accounts(shard: Shard, names: Sequence[str]) -> list[LiveAccount]:
    """Those of these accounts that are there, as they are at one moment."""
    return [
        LiveAccount(
            ledger_name(name, shard.shard_id),
            shard.shard_id,
            account.available_minor + account.held_minor,
            account.held_minor - account.reserved_minor,
            account.version,
            account.state,
            account.currency,
            (account.minimum_minor, account.maximum_balance_minor, account.maximum_transfer_minor),
        )
        for name, account in zip(names, await shard.accounts(names), strict=True)
        if account is not None
    ]


def ledger_name(name: str, shard_id: str) -> str:
    """A live account's id in the ledger: every shard has system accounts of the same names."""
    return f"{name}:{shard_id}" if name.startswith("@") else name


def check_head(
    findings: Findings, shard_id: str, state: LedgerState, head: Head | None, stored_hash: bytes | None
) -> None:
    """Compares what a shard was told is stored with what is.

    ``state`` must be read before ``head``: the archiver stores first, and tells then. ``stored_hash`` is
    that of the batch ``state.number``. A batch more than the shard knows of is no finding: the archiver
    may have died between the two.
    """
    if state.number == 0:
        return
    last = head.number + head.damaged if head else 0
    if last < state.number or stored_hash is None:
        message = (
            f"the shard was told that batch {state.number} is stored, but the archive's last is {last}: "
            "its end was cut off"
            if last < state.number
            else f"batch {state.number}, whose hash the shard keeps, is not in the archive or has no hash"
        )
        findings.add(Rule.HEAD, message, shard_id=shard_id)
    elif stored_hash != state.head:
        findings.add(
            Rule.HEAD,
            f"batch {state.number} is not the one that was stored: the shard keeps the hash "
            f"{state.head.hex()}, the archive has {stored_hash.hex()}",
            shard_id=shard_id,
        )


@dataclass(slots=True)
class Tail:
    """What a shard did after a position and has not yet forgotten."""

    shard: Shard
    archived: ArchivedShard
    stream_id: str = "0"
    next_sequence: int = 1

    async def read(self) -> Sequence[Row]:
        """The next entries; [] at the end.

        Raises ForgottenError when the shard has forgotten some of them: they were archived before.
        """
        stream = await self.shard.ledger_after(self.stream_id, STREAM_COUNT)
        # Asked after the reading: what was not forgotten now was not forgotten then.
        state = await self.shard.ledger_state()
        if stream_place(state.stream_id) > stream_place(self.stream_id):
            raise ForgottenError(state.stream_id)
        if not stream:
            return []
        rows = await asyncio.to_thread(decode, self.archived, stream, self.next_sequence)
        self.stream_id = stream[-1][0]
        self.next_sequence += len(rows)
        return rows


class ForgottenError(Exception):
    """The shard has forgotten its stream up to and with ``stream_id``, further than it was read."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id)
        self.stream_id = stream_id

    def is_lost(self, head: Head | None) -> bool:
        """Whether the archive, read after this was raised, does not have it either: its end was cut off."""
        return head is None or stream_place(head.stream_id) < stream_place(self.stream_id)


async def last_written_ms(shard: Shard) -> int:
    """The time of the last frame that the shard ever made; 0 for none."""
    return stream_place((await shard.info()).last_frame)[0]
