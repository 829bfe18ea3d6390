"""Calls to one shard over Redis, whose functions are those of the Lua library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shard_node.client.connection import ShardRedis, as_shard_error, connect, disconnect
from shard_node.client.ledger_state import LedgerState
from shard_node.client.line import Line
from shard_node.contract import (
    ATTEMPT_BYTES,
    COMMIT_BYTES,
    Account,
    Outcome,
    PendingAttempt,
    PendingCommit,
    PendingTransfer,
    RememberedOutcome,
    pack,
    pack_bytes,
    unpack,
)
from shard_node.errors import ShardFullError, ShardUnavailableError, StaleEpochError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from shard_node.contract import Call, JournalCall, JournalReply, Kind, LegCheck, Reply

# What tests look for here until this module goes.
__all__ = ["LedgerState", "PendingTable", "Shard", "ShardRedis", "connect"]

# Entries a page of a scan: about a millisecond of the shard's time.
SCAN_PAGE = 1000
# Bundles read at once, which have up to thousands of transfers each.
BUNDLE_PAGE = 10
# Fields of a bundle in `attempts` and in `commits`.
ATTEMPT_FIELDS, COMMIT_FIELDS = 6, 4


PendingTable = Literal["prepared", "unsettled"]


def _columns(fields: Mapping[bytes, bytes]) -> bytes:
    """What one call appended to the ledger, packed: it comes so, or, of a bundle, a field a column."""
    packed = fields.get(b"e")
    return pack_bytes(list(fields.values())) if packed is None else packed


B = TypeVar("B", PendingAttempt, PendingCommit)


@dataclass(frozen=True, slots=True)
class ShardCounters:
    """What a shard counts. ``calls`` rises with every call that may have written.

    ``prepared`` and ``unsettled`` count legs of journals, journals, and bundles of transfers.
    """

    calls: int
    alarms: int
    accounts: int
    prepared: int
    unsettled: int


class Shard:
    """One shard at one epoch. Made from a topology; a newer topology makes a new one.

    Raises the errors of ``errors.py``. Never cancel a call: it would cost its connection and might
    have been carried out all the same; cancel above it.
    """

    def __init__(self, shard_id: str, fence: str, redis: ShardRedis, line: Line | None = None) -> None:
        self.shard_id = shard_id
        self.fence = fence
        self.redis = redis
        # Shared by all who use one client.
        self._line = line or Line()

    def __repr__(self) -> str:
        return f"Shard({self.fence})"

    @overload
    async def call(self, call: Call) -> Reply: ...
    @overload
    async def call(self, call: JournalCall) -> JournalReply: ...
    async def call(self, call: Call | JournalCall) -> Reply | JournalReply:
        """Carries out one call of :mod:`shard_node.contract`."""
        return call.reply(await self._fcall("FCALL", call.FUNCTION, *call.arguments()))

    async def open(
        self,
        account_ids: Sequence[str],
        slots: Sequence[int],
        currencies: Sequence[str],
        floors_minor: Sequence[int],
        maximum_balances_minor: Sequence[int] | None = None,
        maximum_transfers_minor: Sequence[int] | None = None,
    ) -> tuple[list[Outcome], list[Account]]:
        """Opens accounts: COMMITTED or ACCOUNT_EXISTS for each, and each account as it stands.

        A maximum of 0, also where none are given, is no limit.
        """
        none = [0] * len(account_ids)
        packed = await self._fcall(
            "FCALL",
            "open",
            pack(
                account_ids,
                slots,
                currencies,
                floors_minor,
                maximum_balances_minor or none,
                maximum_transfers_minor or none,
            ),
        )
        codes, records = unpack(packed)
        return [Outcome(code) for code in codes], [Account.unpack(record) for record in records]

    async def set_state(
        self, account_ids: Sequence[str], changes: Sequence[Kind], *, validate_only: bool = False
    ) -> tuple[list[Outcome], list[Account | None]]:
        """Freezes, unfreezes or closes accounts; an outcome for each, and each account as it stands.

        ``changes`` are FREEZE, UNFREEZE or CLOSE. With ``validate_only`` nothing changes, and VALID is
        the outcome of what could be done.
        """
        packed = await self._fcall(
            "FCALL", "set_state", "1" if validate_only else "0", pack(account_ids, changes)
        )
        codes, records = unpack(packed)
        accounts = [Account.unpack(record) if record else None for record in records]
        return [Outcome(code) for code in codes], accounts

    async def check(self, legs: Sequence[LegCheck]) -> list[int]:
        """For each leg 0 when it could be carried out now, else the refusal. Changes nothing."""
        columns = pack(
            [leg.account for leg in legs],
            [leg.effect for leg in legs],
            [leg.amount_minor for leg in legs],
            [leg.currency for leg in legs],
            [leg.related_key for leg in legs],
            [leg.bound for leg in legs],
        )
        (codes,) = unpack(await self._fcall("FCALL_RO", "check", columns))
        return list(codes)

    async def snapshot(self, account_ids: Sequence[str]) -> list[tuple[Account, int] | None]:
        """Accounts as they are at one moment, None for each that is not there.

        With each comes what is held of it only because a journal's debit is prepared, in minor units: of
        that the ledger will know when the journal commits.
        """
        records, reserved = unpack(await self._fcall("FCALL_RO", "snapshot", pack(account_ids)))
        return [
            (Account.unpack(record), minor) if record else None
            for record, minor in zip(records, reserved, strict=True)
        ]

    async def expire_holds(self, limit: int) -> int:
        """Ends up to ``limit`` holds whose time is over; how many."""
        ended: int = await self._fcall("FCALL", "expire", limit)
        return ended

    async def accounts(self, account_ids: Sequence[str]) -> list[Account | None]:
        """The accounts, None for each that is not there."""
        records = await self._fcall("FCALL_RO", "accounts", pack(account_ids))
        return [None if record is None else Account.unpack(record) for record in records]

    async def account_names(self, slots: Sequence[int], cursor: int = 0) -> tuple[int, list[list[bytes]]]:
        """Names of customers' accounts by slot, some thousand a call: a list for each slot that was read.

        The slots behind these were not read. The last one was read only in part unless the cursor that comes
        with it is 0: go on with that slot as the first, and the cursor. Within a slot there is no order, and
        a name may come twice.
        """
        packed = await self._fcall("FCALL_RO", "account_names", cursor, pack(slots))
        further, names = unpack(packed)
        return int(further), names

    async def outcome(self, decision: bytes) -> RememberedOutcome | None:
        """What is remembered under a decision key."""
        record = await self._fcall("FCALL_RO", "outcome", decision)
        return None if record is None else RememberedOutcome.unpack(record)

    async def horizon_ms(self) -> int:
        """The time, ms since 1970, before which a UUIDv7 that is not remembered counts as expired."""
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.hmget("meta", ["fence", "horizon", "window"])
                pipe.time()
                (fence, horizon, window), (seconds, micros) = await pipe.execute()
        except (RedisError, OSError) as error:
            raise as_shard_error(self.shard_id, error) from error
        self._check_fence(fence)
        return max(int(horizon or 0), int(seconds * 1000 + micros // 1000) - int(window or 0))

    async def rotate(self, minimum_age_ms: int = 0, *, once_archived: bool = False) -> int | None:
        """Forgets the older generation of outcomes; how many were carried over, None when it is too early.

        Too early is within ``minimum_age_ms`` of the last time, by the shard's clock, and with
        ``once_archived`` also before the archive has all that would be forgotten.
        """
        carried: int = await self._fcall_once("FCALL", "rotate", minimum_age_ms, int(once_archived))
        return None if carried < 0 else carried

    async def archived(self, stream_id: str, number: int, head: bytes, entries: int) -> None:
        """Tells the shard that its ledger is stored up to and with ``stream_id``, which it then forgets.

        ``number`` and ``head`` name the last batch stored and its hash; ``entries`` is how many ledger
        entries it and any batches before it that the shard was not told of hold. Does nothing when the
        shard knows of that batch.
        """
        await self._fcall("FCALL", "archived", stream_id, number, head, entries)

    async def ledger_state(self) -> LedgerState:
        """How far the ledger is archived, and what waits."""
        fields = ("fence", "archived_number", "archived_head", "archived_id", "backlog", "backlog_limit")
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.xlen("ledger")
                pipe.hmget("meta", fields)
                (seconds, micros), length, values = await pipe.execute()
        except (RedisError, OSError) as error:
            raise as_shard_error(self.shard_id, error) from error
        fence, number, head, stream_id, backlog, limit = values
        self._check_fence(fence)
        return LedgerState(
            int(number or 0),
            head or b"",
            (stream_id or b"0-0").decode(),
            int(backlog or 0),
            int(limit or 0),
            length,
            int(seconds * 1000 + micros // 1000),
        )

    async def ledger_after(self, stream_id: str, count: int) -> list[tuple[str, bytes]]:
        """Up to ``count`` entries of the ledger's stream after an id, "0" for the first, as (id, columns)."""
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.hget("meta", "fence")
                pipe.xrange("ledger", f"({stream_id}", "+", count)
                fence, entries = await pipe.execute()
        except (RedisError, OSError) as error:
            raise as_shard_error(self.shard_id, error) from error
        self._check_fence(fence)
        return [(entry_id.decode(), _columns(fields)) for entry_id, fields in entries]

    def _check_fence(self, fence: bytes | None) -> None:
        """A plain look is not fenced by itself: another shard may answer on the address by now."""
        if fence is None or fence.decode() != self.fence:
            raise StaleEpochError(f"{self.shard_id} is at {fence!r}, not {self.fence}")

    async def clock_ms(self) -> int:
        """The shard's clock, ms since 1970."""
        try:
            seconds, micros = await self.redis.time()
        except (RedisError, OSError) as error:
            raise as_shard_error(self.shard_id, error) from error
        return int(seconds * 1000 + micros // 1000)

    async def pending(self, table: PendingTable, minimum_age_ms: int, limit: int) -> list[PendingTransfer]:
        """Up to ``limit`` transfers, journals and legs of journals, prepared or unsettled at least that long.

        By the shard's clock. A plain look, not fenced: whoever acts on it does so by calls that are.
        """
        found, _ = await self.pending_from(0, table, minimum_age_ms, limit)
        if len(found) < limit:
            entries, _ = await self.pending_bundles_from(0, table, minimum_age_ms, limit)
            found += [transfer for entry in entries for transfer in entry.transfers()]
        return found[:limit]

    async def pending_from(
        self, cursor: int, table: PendingTable, minimum_age_ms: int, limit: int
    ) -> tuple[list[PendingTransfer], int]:
        """Journals only, from a cursor on, 0 for the start; and the cursor to go on from, 0 at the end.

        Ends with the page in which ``limit`` is reached, so there may be some more.
        """
        found: dict[bytes, PendingTransfer] = {}
        since_ms = await self.clock_ms() - minimum_age_ms
        while True:
            try:
                cursor, page = await self.redis.hscan(table, cursor, count=SCAN_PAGE)
            except (RedisError, OSError) as error:
                raise as_shard_error(self.shard_id, error) from error
            for key, value in cast("dict[bytes, bytes]", page).items():
                if PendingTransfer.time_ms(value) <= since_ms:
                    found[key] = PendingTransfer.unpack(key, value)
            if cursor == 0 or len(found) >= limit:
                return list(found.values()), cursor

    @overload
    async def pending_bundles_from(
        self, cursor: int, table: Literal["prepared"], minimum_age_ms: int, limit: int
    ) -> tuple[list[PendingAttempt], int]: ...
    @overload
    async def pending_bundles_from(
        self, cursor: int, table: Literal["unsettled"], minimum_age_ms: int, limit: int
    ) -> tuple[list[PendingCommit], int]: ...
    @overload
    async def pending_bundles_from(
        self, cursor: int, table: PendingTable, minimum_age_ms: int, limit: int
    ) -> tuple[list[PendingAttempt] | list[PendingCommit], int]: ...
    async def pending_bundles_from(
        self, cursor: int, table: PendingTable, minimum_age_ms: int, limit: int
    ) -> tuple[list[PendingAttempt] | list[PendingCommit], int]:
        """The same of transfers, in the bundles they came in. ``limit`` counts transfers."""
        if table == "prepared":
            return await self._scan_bundles(
                cursor, "attempts", ATTEMPT_BYTES, PendingAttempt.unpack, minimum_age_ms, limit
            )
        return await self._scan_bundles(
            cursor, "commits", COMMIT_BYTES, PendingCommit.unpack, minimum_age_ms, limit
        )

    async def commits(self, names: Sequence[bytes]) -> list[PendingCommit]:
        """Those of these commits that are not settled: what is not there counts as finished."""
        found: list[PendingCommit] = []
        for first in range(0, len(names), BUNDLE_PAGE):
            page = names[first : first + BUNDLE_PAGE]
            found += await self._bundles("commits", page, PendingCommit.unpack)
        return found

    async def _scan_bundles(
        self,
        cursor: int,
        table: str,
        name_bytes: int,
        read: Callable[[bytes, bytes, bytes, bytes, bytes], B],
        minimum_age_ms: int,
        limit: int,
    ) -> tuple[list[B], int]:
        found: dict[bytes, B] = {}
        size = 0
        since_ms = await self.clock_ms() - minimum_age_ms
        while True:
            try:
                # Only the fields that name a bundle: its columns are big.
                cursor, page = await self.redis.hscan(table, cursor, match="?" * name_bytes, count=SCAN_PAGE)
            except (RedisError, OSError) as error:
                raise as_shard_error(self.shard_id, error) from error
            names = [name for name in cast("dict[bytes, bytes]", page) if name not in found]
            for first in range(0, len(names), BUNDLE_PAGE):
                for entry in await self._bundles(table, names[first : first + BUNDLE_PAGE], read):
                    if entry.since_ms <= since_ms:
                        found[entry.name] = entry
                        size += entry.size
            if cursor == 0 or size >= limit:
                return list(found.values()), cursor

    async def _bundles(
        self, table: str, names: Sequence[bytes], read: Callable[[bytes, bytes, bytes, bytes, bytes], B]
    ) -> list[B]:
        fields = [name + column for name in names for column in (b"", b"d", b"t", b"b")]
        if not fields:
            return []
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.hget("meta", "fence")
                pipe.hmget(table, fields)
                fence, values = await pipe.execute()
        except (RedisError, OSError) as error:
            raise as_shard_error(self.shard_id, error) from error
        self._check_fence(fence)
        rows = zip(names, values[::4], values[1::4], values[2::4], values[3::4], strict=True)
        # One that ended since it was found is there no more.
        return [read(name, *row) for name, *row in rows if None not in row]

    async def accounts_by_page(self) -> AsyncIterator[list[tuple[bytes, Account]]]:
        """Every account, some a page. An account may come twice when the hash grows meanwhile."""
        cursor = 0
        while True:
            try:
                cursor, page = await self.redis.hscan("accounts", cursor, count=SCAN_PAGE)
            except (RedisError, OSError) as error:
                raise as_shard_error(self.shard_id, error) from error
            # redis-py's annotation covers every protocol and decoding; here it is always this.
            records = cast("dict[bytes, bytes]", page)
            yield [(name, Account.unpack(record)) for name, record in records.items()]
            if cursor == 0:
                return

    async def counters(self) -> ShardCounters:
        """Sizes and counters, one after the other: a full shard would refuse a MULTI."""
        try:
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.hmget("meta", ["fence", "calls", "alarms"])
                for table in ("accounts", "prepared", "attempts", "unsettled", "commits"):
                    pipe.hlen(table)
                meta, accounts, legs, attempts, journals, commits = await pipe.execute()
        except (RedisError, OSError) as error:
            raise as_shard_error(self.shard_id, error) from error
        fence, calls, alarms = meta
        self._check_fence(fence)
        prepared, unsettled = legs + attempts // ATTEMPT_FIELDS, journals + commits // COMMIT_FIELDS
        return ShardCounters(int(calls or 0), int(alarms or 0), accounts, prepared, unsettled)

    async def _fcall(self, command: str, function: str, *arguments: bytes | int | str) -> Any:
        """A function that may be called twice, as all may but rotate: a repetition finds itself done.

        After a restart of Redis the connection kept from before is dead, which may show only when it is
        used. So a broken connection is tried once more, with a new one. A time-out is not: the first
        call may still wait there.
        """
        try:
            return await self._fcall_once(command, function, *arguments)
        except ShardUnavailableError as error:
            if not isinstance(error.__cause__, RedisConnectionError):
                raise
        try:
            return await self._fcall_once(command, function, *arguments)
        except ShardFullError as error:
            # "Nothing was begun" is true of the repetition only.
            raise ShardUnavailableError(f"{error}, and the call before it got no answer") from error

    async def _fcall_once(self, command: str, function: str, *arguments: bytes | int | str) -> Any:
        line = self._line
        probing = line.silent and line.probe()
        try:
            if line.silent and not probing:
                raise self._silent()
            async with line.room:
                # Silence may have begun while this call waited its turn.
                if line.silent and not probing:
                    raise self._silent()
                answer = await self.redis.link.call(command, function, 0, self.fence, *arguments)
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
