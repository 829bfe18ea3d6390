"""The fuzzer's own books: what the ledgers and the answers say, added up apart from the shards.

Nothing here asks a shard for a sum. Balances, holds and refunds come from the ledger's entries, which are
then compared with what the shards keep, with what is on its way, and with what callers were told.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shard_node.client.directory import Cluster
from shard_node.contract.journals import Effect, LegBody
from shard_node.contract.outcomes import Outcome
from shard_node.contract.records import Account
from shard_node.contract.transfers import Kind, unpack_body
from shard_node.ledger.store.library_entries import decode
from shard_node.ledger.store.rows import ArchivedShard, Entry
from shard_node.limits import MAX_MINOR
from tests.coordinator.fuzz_payloads import condition_key
from tests.model.outcomes import Kept
from tests.shard_node.kept import BIG, kept_in

# Not the word on an id: another try may still commit it, or may have.
OPEN_ENDED = frozenset((Outcome.OUTCOME_UNKNOWN, Outcome.RESOURCE_EXHAUSTED, Outcome.STALE_EPOCH))
_PAGE = 1000
_ID_BYTES, _KEY_BYTES = 16, 24


class BrokenError(AssertionError):
    """A promise that is not kept."""


def require(kept: bool, promise: str, *details: object) -> None:  # noqa: FBT001  # reads like assert
    """Raises BrokenError unless the promise is kept."""
    if not kept:
        raise BrokenError(": ".join((promise, *(str(detail) for detail in details))))


@dataclass(slots=True)
class _Folded:
    """An account by its entries."""

    balance: int = 0
    held: int = 0
    version: int = 0


@dataclass(slots=True)
class _Waiting:
    """What is prepared on one shard, added up."""

    # By account, without those that have nothing: reserved by debits, and coming to those with a maximum.
    reserved: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    coming: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    # By purchase and customer.
    refunds: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    debits: int = 0
    big: int = 0
    # Rows of attempts.
    credits_minor: int = 0


class _InFlight:
    """What is in doubt of transfers, on all shards: a row of a bundle is named by attempt and position."""

    def __init__(self, kept: Sequence[Mapping[str, Any]]) -> None:
        self.attempts = [attempt for one in kept for attempt in one["attempts"].items()]
        self.commits = [commit for one in kept for commit in one["commits"].values()]
        self.committed: dict[tuple[bytes, int], Kept] = {}
        for commit in self.commits:
            for number, row in enumerate(commit.rows):
                if row.outcome == Outcome.COMMITTED:
                    self.committed[commit.attempt_id, number] = row
        waiting = {
            (attempt_id, number)
            for attempt_id, rows in self.attempts
            for number, row in enumerate(rows)
            if row.outcome == Outcome.PREPARED
        }
        # Committed, and not applied yet.
        self.rows = {name: row for name, row in self.committed.items() if name in waiting}

    @property
    def amount_minor(self) -> int:
        """All that has left its payer and not reached its payee."""
        return sum(unpack_body(row.body).amount_minor for row in self.rows.values())


class Books:
    """What ledgers tell, as far as they were read. Amounts in minor units."""

    def __init__(self, cluster: Cluster) -> None:
        # As it is now: slots move.
        self.cluster = cluster
        self._after = ["0"] * len(cluster.shards)
        # How many entries each shard made.
        self.counts = [0] * len(cluster.shards)
        self.kinds: set[Kind] = set()
        # Each transaction's legs by number, under its 24-byte key.
        self.legs: dict[bytes, dict[int, Entry]] = defaultdict(dict)
        # Keys of those of which legs are not applied yet.
        self.incomplete: set[bytes] = set()
        self._accounts: dict[str, _Folded] = defaultdict(_Folded)
        # By hold, or by purchase and customer: see condition_key.
        self.holds: dict[bytes, int] = defaultdict(int)
        self._refunds: dict[bytes, int] = defaultdict(int)
        # When holds end, as far as somebody looked; the amounts of purchases; what callers were told.
        self.hold_ends_ms: dict[bytes, int] = {}
        self.purchases: dict[bytes, int] = {}
        self.told: dict[bytes, set[Outcome]] = defaultdict(set)
        # Ids of which a shard may have forgotten the outcome.
        self.forgotten: set[bytes] = set()

    async def check(self, *, at_rest: bool) -> None:
        """Compares everything. ``at_rest`` says that nothing may be on its way.

        Raises BrokenError. Not while a call is under way.
        """
        await self.read()
        kept = await asyncio.gather(*(kept_in(shard) for shard in self.cluster.shards))
        for index, one in enumerate(kept):
            self._check_shard(index, one)
        self._check_in_doubt(kept, at_rest=at_rest)
        self._check_money(kept)
        self._check_told()

    # ------------------------------------------------------------------ reading

    async def read(self) -> None:
        """Adds the entries that are new: also before a slot moves, for an account's are in an order."""
        for index, shard in enumerate(self.cluster.shards):
            while stream := await shard.ledger_after(self._after[index], _PAGE):
                self._after[index] = stream[-1][0]
                rows = decode(ArchivedShard(index, shard.shard_id), stream, self.counts[index] + 1)
                self.counts[index] += len(rows)
                for row in rows:
                    self._add(Entry(*row))

    def _add(self, entry: Entry) -> None:
        folded = self._accounts[entry.account_id]
        if entry.kind != Kind.OPEN:
            folded.version += 1
        folded.balance += entry.delta
        folded.held += entry.held_delta
        require(entry.version == folded.version, "versions have no gap", entry)
        require(entry.balance == folded.balance, "an entry's balance is the sum of all up to it", entry)
        self.kinds.add(Kind(entry.kind))
        if entry.transaction_id is None:
            return
        if entry.held_delta:
            self._add_hold(entry, entry.transaction_id)
        if entry.kind == Kind.REFUND and entry.leg == 1:
            self._refunds[condition_key(entry.related_id or b"", entry.account_id)] += entry.delta
        # The end of a hold by its time is no leg, though it counts as one.
        if entry.kind != Kind.EXPIRY:
            self._add_leg(entry, entry.transaction_id + (entry.fingerprint or b""))

    def _add_hold(self, entry: Entry, transaction_id: bytes) -> None:
        begins_or_expires = entry.kind in (Kind.HOLD, Kind.EXPIRY)
        name = condition_key(
            transaction_id if begins_or_expires else entry.related_id or b"", entry.account_id
        )
        self.holds[name] += entry.held_delta
        require(self.holds[name] >= 0, "a hold is captured, voided or expired once", entry)
        if entry.kind == Kind.CAPTURE and name in self.hold_ends_ms:
            # The shard's own two times: an entry's is the beginning of the call that made it.
            require(
                entry.at_ms < self.hold_ends_ms[name], "no capture of an expired hold", entry.at_ms, entry
            )
        if not self.holds[name]:
            del self.holds[name]

    def _add_leg(self, entry: Entry, key: bytes) -> None:
        legs = self.legs[key]
        require(entry.leg not in legs, "a leg is applied once", entry)
        legs[entry.leg] = entry
        if len(legs) < entry.leg_count:
            self.incomplete.add(key)
            return
        self.incomplete.discard(key)
        require(sum(leg.delta for leg in legs.values()) == 0, "legs add up to nothing", key.hex())

    # ------------------------------------------------------------------ comparing

    def _check_shard(self, index: int, kept: Mapping[str, Any]) -> None:
        waiting = _waiting(kept)
        require(kept["alarms"] == 0, "no leg is missing (R5)", index, kept["alarms"])
        require(kept["backlog"] == self.counts[index], "the backlog counts entries", index, kept["backlog"])
        require(kept["reserved"] == waiting.debits, "prepared debits are counted", index, kept["reserved"])
        require(kept["credits"] == waiting.credits_minor, "small credits are summed", index, kept["credits"])
        require(kept["big"] == waiting.big, "big prepared credits are counted", index, kept["big"])
        require(kept["coming"] == waiting.coming, "what limited accounts have coming", index, kept["coming"])
        for name, account in kept["accounts"].items():
            self._check_account(_ledger_name(name, index), account, waiting.reserved.get(name, 0))
        holds = {name: hold.amount_minor for name, hold in kept["holds"].items()}
        mine = {k: v for k, v in self.holds.items() if self._shard_of(k) == index}
        require(holds == mine, "holds are those of the ledger", index, holds, mine)
        self._check_refunds(index, kept["refunds"], waiting.refunds)

    def _check_refunds(self, index: int, kept: dict[bytes, int], prepared: dict[bytes, int]) -> None:
        sums = {name: sum_ for name, sum_ in self._refunds.items() if self._shard_of(name) == index}
        for name, amount in prepared.items():
            sums[name] = sums.get(name, 0) + amount
        require(kept == sums, "refunded is what was refunded and is prepared", index, kept, sums)
        for name, amount in kept.items():
            most = self.purchases[name]
            require(amount <= most, "no more is refunded than was paid", name.hex(), amount, most)

    def _check_account(self, name: str, account: Account, reserved: int) -> None:
        folded = self._accounts[name]
        balance = account.available_minor + account.held_minor
        require(balance == folded.balance, "balances are the ledger's sums", name, account, folded)
        require(
            account.held_minor == folded.held + reserved,
            "held is what holds and prepared debits hold",
            name, account, folded, reserved,
        )  # fmt: skip
        require(account.version == folded.version, "versions are the ledger's", name, account, folded)
        require(
            account.available_minor >= account.floor_minor, "no account is below its floor", name, account
        )
        most = account.maximum_balance_minor or MAX_MINOR
        require(balance <= most, "no account is above its maximum", name, account)

    def _shard_of(self, name: bytes) -> int:
        return self.cluster.owner[int.from_bytes(name[16:], "little")]

    def _check_money(self, kept: Sequence[Mapping[str, Any]]) -> None:
        total = sum(a.available_minor + a.held_minor for one in kept for a in one["accounts"].values())
        unsettled = {key for one in kept for key in one["unsettled"]}
        for one in kept:
            for key, body in one["prepared"].items():
                if key[:_KEY_BYTES] in unsettled:
                    total += LegBody.unpack(body).amount_minor
        total += _InFlight(kept).amount_minor
        require(total == 0, "money is neither made nor lost", total)

    def _check_in_doubt(self, kept: Sequence[Mapping[str, Any]], *, at_rest: bool) -> None:
        prepared = {key for one in kept for key in one["prepared"]}
        unsettled = {key for one in kept for key in one["unsettled"]}
        transfers = _InFlight(kept)
        committed = {row.key for row in transfers.committed.values()}
        on_their_way = {row.key for row in transfers.rows.values()}
        for key in self.incomplete:
            is_kept = key in unsettled or key in committed
            require(is_kept, "nothing is settled before all its legs are applied (R6)", key.hex())
            legs = self.legs[key]
            for number in range(next(iter(legs.values())).leg_count):
                waits = key in on_their_way or key + number.to_bytes(2, "little") in prepared
                require(number in legs or waits, "a committed leg is applied or prepared", key.hex(), number)
        for key in on_their_way:
            require(
                key in self.incomplete, "what was applied waits in no attempt that may apply it", key.hex()
            )
        if at_rest:
            left = prepared, unsettled, transfers.attempts, transfers.commits
            require(not any(left), "recovery ends all", *map(len, left))

    def _check_told(self) -> None:
        for key, outcomes in self.told.items():
            final = outcomes - OPEN_ENDED
            if key[:_ID_BYTES] in self.forgotten:
                final -= {Outcome.TRANSACTION_ID_EXPIRED}
            names = [outcome.name for outcome in final]
            require(len(final) <= 1, "an id has one outcome (R1)", key.hex(), names)
            if Outcome.COMMITTED in final:
                done = key in self.legs and key not in self.incomplete
                require(done, "told COMMITTED, all legs are applied", key.hex())
            elif final:
                require(key not in self.legs, "told a refusal, nothing has moved", key.hex(), names)


def _waiting(kept: Mapping[str, Any]) -> _Waiting:
    waiting = _Waiting()
    legs = [LegBody.unpack(body) for body in kept["prepared"].values()]
    rows = [row for rows in kept["attempts"].values() for row in rows if row.outcome == Outcome.PREPARED]
    transfers = [unpack_body(row.body) for row in rows]
    amounts = [(leg.account, leg.amount_minor) for leg in legs]
    amounts += [(terms.payee, terms.amount_minor) for terms in transfers]
    for name, amount in amounts:
        waiting.big += amount > BIG
        if amount < 0:
            waiting.debits += 1
            waiting.reserved[name] -= amount
        elif kept["accounts"][name].maximum_balance_minor:
            waiting.coming[name.encode()] += amount
    for leg in legs:
        if leg.effect is Effect.REFUND:
            waiting.refunds[condition_key(leg.related_id, leg.account)] += leg.amount_minor
    waiting.credits_minor = sum(terms.amount_minor for terms in transfers if terms.amount_minor <= BIG)
    return waiting


def _ledger_name(name: str, index: int) -> str:
    """System accounts exist once a shard."""
    return f"{name}:shard-{index}" if name.startswith("@") else name
