"""Calls to one shard whose Redis has the shard engine."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple, Self

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shard_node.client.connection import ShardRedis, as_shard_error, disconnect
from shard_node.client.ledger_state import LedgerState
from shard_node.client.line import Line
from shard_node.cluster import SLOT_COUNT
from shard_node.contract import (
    ALL_OWNERS,
    SYSTEM_SLOT,
    AccountRecord,
    AccountTerms,
    Answer,
    Command,
    Doubt,
    Kind,
    Outcome,
    RememberedOutcome,
    ShardStatus,
    pack_changes,
    pack_names,
    pack_terms,
    read_doubts,
    unpack_names,
    unpack_outcomes,
    unpack_records,
)
from shard_node.errors import ShardFullError, ShardUnavailableError, StaleEpochError

# A stream entry of the ledger: its id, "milliseconds-number", and the fields of its frame.
LedgerEntry = tuple[str, dict[bytes, bytes]]

_INFO: Final = "tallystick.info"
# What it answers before the first bind.
_NO_SHARD: Final = "STALE_EPOCH this Redis holds no shard"
_EVERYWHERE: Final = (*range(SLOT_COUNT), SYSTEM_SLOT)
# Attempts and commits read at once. The shard answers fewer when their bundles are large.
_DOUBTS_AT_ONCE: Final = 256


async def status_of(redis: ShardRedis, shard_id: str) -> ShardStatus | None:
    """How the shard is that a Redis holds, whichever that is; None while it holds none.

    Raises the errors of ``errors.py``, which name ``shard_id``.
    """
    try:
        return ShardStatus.read(await redis.link.call(_INFO))
    except (RedisError, OSError) as error:
        if str(error).startswith(_NO_SHARD):
            return None
        raise as_shard_error(shard_id, error) from error


class Mark(NamedTuple):
    """The shard's time, ms since 1970, and the id of the ledger's last frame, when the log was marked."""

    now_ms: int
    last_frame: str


class Shard:
    """One shard at one epoch. Made from a topology; a newer topology makes a new one.

    ``fence`` is "cluster/shard/epoch": every call carries it, and the shard refuses any other. Raises the
    errors of ``errors.py``. Never cancel a call: it would cost its connection and might have been carried out
    all the same; cancel above it. A list of accounts has 8192 names at the most.
    """

    def __init__(self, shard_id: str, fence: str, redis: ShardRedis, line: Line | None = None) -> None:
        self.shard_id = shard_id
        self.fence = fence
        self.redis = redis
        # Shared by all who use one client.
        self._line = line or Line()

    def __repr__(self) -> str:
        return f"Shard({self.fence})"

    async def call(self, command: Command) -> Answer:
        """Carries out one command of :mod:`shard_node.contract.commands`."""
        return command.answer(await self._send(command.COMMAND, self.fence, *command.arguments()))

    # ------------------------------------------------------------------ accounts

    async def open(self, terms: Sequence[AccountTerms]) -> tuple[list[Outcome], list[AccountRecord]]:
        """Opens accounts: COMMITTED or ACCOUNT_EXISTS for each, and each account as it stands."""
        codes, records = await self._send("tallystick.open", self.fence, pack_terms(terms))
        # There are all of them now.
        return [Outcome(code) for code in codes], [one for one in unpack_records(records) if one]

    async def set_state(
        self, changes: Sequence[tuple[str, Kind]], *, validate_only: bool = False
    ) -> tuple[list[Outcome], list[AccountRecord | None]]:
        """Freezes, unfreezes or closes accounts; an outcome for each, and each account as it stands.

        ``changes`` are account ids, each with FREEZE, UNFREEZE or CLOSE. With ``validate_only`` nothing
        changes, and VALID is the outcome of what could be done.
        """
        codes, records = await self._send(
            "tallystick.set_state", self.fence, int(validate_only), pack_changes(changes)
        )
        return [Outcome(code) for code in codes], unpack_records(records)

    async def accounts(self, account_ids: Sequence[str]) -> list[AccountRecord | None]:
        """The accounts as they are at one moment, None for each that is not there."""
        if not account_ids:
            return []
        return unpack_records(await self._send("tallystick.accounts", self.fence, pack_names(account_ids)))

    async def check(self, bundle: bytes, owner: int = ALL_OWNERS) -> bytes:
        """A byte for each leg of that owner: 0 when it could be carried out now, else the refusal.

        Transaction by transaction, in the order of their legs. Changes nothing.
        """
        codes: bytes = await self._send("tallystick.check", self.fence, owner, bundle)
        return codes

    async def account_names(self, slots: Sequence[int], cursor: bytes = b"") -> tuple[bytes, list[list[str]]]:
        """Names of accounts by slot, some thousand a call: a list for each slot that was read.

        The slots behind these were not read. The last one was read only in part unless the cursor that comes
        with it is empty: go on with that slot as the first, and the cursor. Within a slot there is no order,
        and a name may come twice. System accounts are in SYSTEM_SLOT.
        """
        packed_slots = struct.pack(f"<{len(slots)}H", *slots)
        further, read = await self._send("tallystick.names", self.fence, cursor, packed_slots)
        return further, [unpack_names(names) for names in read]

    async def names_by_page(self) -> AsyncIterator[list[str]]:
        """The names of all accounts, some thousand a page. One that is opened meanwhile may be left out."""
        cursor, left = b"", list(_EVERYWHERE)
        while left:
            cursor, read = await self.account_names(left, cursor)
            left = left[len(read) - bool(cursor) :]
            yield [name for part in read for name in part]

    async def accounts_by_page(self) -> AsyncIterator[list[tuple[str, AccountRecord]]]:
        """Every account, some thousand a page. One that is opened meanwhile may be left out."""
        async for names in self.names_by_page():
            records = await self.accounts(names)
            yield [(name, record) for name, record in zip(names, records, strict=True) if record]

    async def expire_holds(self, limit: int) -> int:
        """Ends up to ``limit`` holds whose time is over, longest overdue first; how many.

        The shard ends fewer at once when their texts are long.
        """
        ended: int = await self._send("tallystick.expire", self.fence, limit)
        return ended

    # ------------------------------------------------------------------ outcomes, and what is in doubt

    async def outcomes(self, decisions: Sequence[bytes]) -> list[RememberedOutcome | None]:
        """What is remembered under decisions, None for each of which nothing is.

        A decision is a transaction id and the slot that is its scope, 18 bytes.
        """
        return unpack_outcomes(await self._send("tallystick.outcomes", self.fence, b"".join(decisions)))

    async def outcome(self, decision: bytes) -> RememberedOutcome | None:
        """What is remembered under one decision."""
        (found,) = await self.outcomes([decision])
        return found

    async def rotate(
        self, minimum_age_ms: int = 0, *, once_archived: bool = False, rotated_ms: int | None = None
    ) -> int | None:
        """Forgets the older generation of outcomes; how many were carried over, None when it is too early.

        Too early is within ``minimum_age_ms`` of the last time, by the shard's clock, and with
        ``once_archived`` also before the archive has all that would be forgotten. Two that decide on the
        same rotation forget one generation: nothing is done after another one than that at ``rotated_ms``,
        as ``info`` tells it; None asks for it now.
        """
        if rotated_ms is None:
            rotated_ms = (await self.info()).rotated_ms
        carried: int = await self._send(
            "tallystick.rotate", self.fence, minimum_age_ms, int(once_archived), rotated_ms
        )
        return None if carried < 0 else carried

    async def in_doubt(self, after: int = 0, count: int = _DOUBTS_AT_ONCE) -> list[Doubt]:
        """Up to ``count`` attempts and commits in doubt, the oldest first; [] when there are no more.

        Those with a serial number above ``after``. The shard answers fewer when their bundles are large.
        """
        return read_doubts(await self._send("tallystick.in_doubt", self.fence, after, count))

    async def all_in_doubt(self, minimum_age_ms: int = 0) -> AsyncIterator[Doubt]:
        """All attempts and commits that have been in doubt for that long at least, the oldest first."""
        status = await self.info()
        if status.oldest_in_doubt_ms < minimum_age_ms:
            return
        latest_ms = status.now_ms - minimum_age_ms
        page = await self.in_doubt()
        while page:
            for doubt in page:
                # Serial numbers rise with the time.
                if doubt.since_ms > latest_ms:
                    return
                yield doubt
            page = await self.in_doubt(page[-1].serial)

    # ------------------------------------------------------------------ the ledger

    async def archived(self, stream_id: str, number: int, head: bytes, entries: int) -> None:
        """Tells the shard that its ledger is stored up to and with ``stream_id``, which it then forgets.

        ``number`` and ``head`` name the last batch stored and its hash; ``entries`` is how many ledger
        entries it and any batches before it that the shard was not told of hold. Does nothing when the
        shard knows of that batch.
        """
        await self._send("tallystick.archived", self.fence, stream_id, number, head, entries)

    async def ledger_state(self) -> LedgerState:
        """How far the ledger is archived, and what waits."""
        before, (length, info) = await self._look(("XLEN", "ledger"), (_INFO,))
        after = ShardStatus.read(info)
        return LedgerState(
            after.archived_number,
            after.archived_head,
            after.archived_frame,
            after.backlog_entries,
            after.backlog_limit,
            length,
            before.now_ms,
        )

    async def ledger_after(self, stream_id: str, count: int) -> list[LedgerEntry]:
        """Up to ``count`` frames of the ledger's stream after an id, "0" for the first."""
        _, (entries,) = await self._look(("XRANGE", "ledger", f"({stream_id}", "+", "COUNT", count))
        return [(entry_id.decode(), frame) for entry_id, frame in entries]

    async def mark(self) -> Mark:
        """Marks the log: whoever has the mark has all that came before."""
        now_ms, last_frame = await self._send("tallystick.mark", self.fence)
        return Mark(now_ms, last_frame.decode())

    # ------------------------------------------------------------------ the shard

    async def bind(self, window_ms: int, backlog_limit: int) -> None:
        """Binds the Redis to this shard and epoch: from then on it refuses all other fences.

        Transaction ids are remembered for ``window_ms`` at least. With ``backlog_limit`` ledger entries that
        wait to be archived, nothing new begins. Raises WrongShardError when the Redis holds another shard,
        StaleEpochError when it is at a higher epoch.
        """
        name, _, epoch = self.fence.rpartition("/")
        await self._send("tallystick.bind", name, epoch, window_ms, backlog_limit)

    async def rename(self, cluster_id: str, epoch: int) -> None:
        """Makes the shard one of another cluster, which was copied from this one, at a higher epoch.

        From then on it refuses this fence. Raises StaleEpochError where it does so already, and where the
        epoch is not above the shard's.
        """
        # Once: a repetition would find the fence gone.
        await self._send_once("tallystick.rename", self.fence, cluster_id, epoch)

    async def info(self) -> ShardStatus:
        """How the shard is."""
        status, _ = await self._look()
        return status

    async def horizon_ms(self) -> int:
        """The time, ms since 1970, before which a UUIDv7 that is not remembered counts as expired."""
        return (await self.info()).expired_before_ms

    async def clock_ms(self) -> int:
        """The shard's time, ms since 1970."""
        return (await self.info()).now_ms

    async def digest(self, slot: int | None = None) -> int:
        """A number that is the same wherever the same is held: by a slot, or by the whole shard.

        It takes the shard's time for as long as there are records. Not fenced: a replica answers, too.
        """
        digest: int = await self._send("tallystick.digest", *(() if slot is None else (slot,)))
        return digest

    # ------------------------------------------------------------------ how calls are made

    async def _look(self, *commands: tuple[Any, ...]) -> tuple[ShardStatus, list[Any]]:
        """The shard's status, then the answers to commands that change nothing and carry no fence.

        One after the other: a full shard would refuse a MULTI. Over a connection of their own, for an answer
        may be large, and transfers behind it would wait.
        """
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                for command in ((_INFO,), *commands):
                    pipe.execute_command(*command)
                # Raised by the pipeline, an error would begin with other words.
                info, *answers = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise as_shard_error(self.shard_id, error) from error
        for answer in (info, *answers):
            if isinstance(answer, Exception):
                raise as_shard_error(self.shard_id, answer) from answer
        status = ShardStatus.read(info)
        # Another shard may answer on the address by now.
        if status.fence != self.fence:
            raise StaleEpochError(f"{self.shard_id}: the shard is at {status.fence}, not {self.fence}")
        return status, answers

    async def _send(self, command: str, *arguments: bytes | int | str) -> Any:
        """A command that may be called twice: a repetition finds itself done.

        After a restart of Redis the connection kept from before is dead, which may show only when it is
        used. So a broken connection is tried once more, with a new one. A time-out is not: the first
        call may still wait there.
        """
        try:
            return await self._send_once(command, *arguments)
        except ShardUnavailableError as error:
            if not isinstance(error.__cause__, RedisConnectionError):
                raise
        try:
            return await self._send_once(command, *arguments)
        except ShardFullError as error:
            # "Nothing was begun" is true of the repetition only.
            raise ShardUnavailableError(f"{error}, and the call before it got no answer") from error

    async def _send_once(self, command: str, *arguments: bytes | int | str) -> Any:
        line = self._line
        probing = line.silent and line.probe()
        try:
            if line.silent and not probing:
                raise self._silent()
            async with line.room:
                # Silence may have begun while this call waited its turn.
                if line.silent and not probing:
                    raise self._silent()
                answer = await self.redis.link.call(command, *arguments)
        except (TimeoutError, RedisTimeoutError) as error:
            line.timed_out()
            raise as_shard_error(self.shard_id, error) from error
        except (RedisError, OSError) as error:
            line.answered()
            raise as_shard_error(self.shard_id, error) from error
        finally:
            if probing:
                line.probed()
        if line.silent:
            line.answered()
        return answer

    def _silent(self) -> ShardUnavailableError:
        return ShardUnavailableError(f"{self.shard_id}: gave no answer lately; not called")

    async def close(self) -> None:
        """Closes its connections."""
        await disconnect(self.redis)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
