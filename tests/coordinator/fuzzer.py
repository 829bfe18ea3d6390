"""Random messages around journals, holds, refunds and transfers on three real shards, and what must hold.

Several coordinators at a time try transactions, message by message: each message may be lost, its reply
too; it may come twice, or once more long after. Coordinators die between two steps. Meanwhile recovery
runs, holds end, accounts freeze, money comes in, shards forget. Every now and then, and whenever nothing is
on its way, the fuzzer's own books (:mod:`tests.coordinator.fuzz_books`) are compared with everything.

A run is a number of steps drawn from a seed. Only the lives of holds are in real time, so the same seed
gives much the same run again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from structlog.testing import capture_logs

from coordinator.protocol import NoReply
from coordinator.resolver import Resolver
from shard_node.calls import Post
from shard_node.directory import Cluster
from shard_node.journal_calls import DecideJournals, Journals, LegRef, PostJournals
from shard_node.journals import Effect
from shard_node.limits import MAX_MINOR
from shard_node.outcomes import Outcome, without_side
from shard_node.slots import slot
from shard_node.transfers import Kind, Terms, Transfers
from tests.coordinator.bank import name_on
from tests.coordinator.fuzz_attempts import Attempt, Setting
from tests.coordinator.fuzz_books import Books, BrokenError
from tests.coordinator.fuzz_payloads import CURRENCY, SHOWN, Hold, Payloads, Transaction, condition_key
from tests.real_shards import RealShards

SHARDS = 3
ACCOUNTS_A_SHARD = 4
# Coordinators at work at once.
_COORDINATORS = 8
# The latest transactions, some of which are tried again.
_RECENT = 25
# Of them, those that are tried again after they may be forgotten, if their ids tell their age.
_OLD = 8
# Messages that may still arrive.
_LATE = 60
# Operations that a failure tells.
_TOLD_OPERATIONS = 40
# Shares of messages: never carried out; never answered; twice at once; once more, later.
_LOST, _UNANSWERED, _DOUBLED, _LATE_AGAIN = 0.1, 0.08, 0.04, 0.2


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did: answers by outcome, kinds of entries in the ledgers, committed transactions."""

    outcomes: Counter[Outcome]
    kinds: set[Kind]
    committed: int


class FuzzError(AssertionError):
    """A run found something wrong. The text has what, the seed, and the last operations."""

    def __init__(self, what: str, setting: Setting, step: int, operations: Sequence[str]) -> None:
        self.what = what
        self.step = step
        super().__init__("\n".join((what, f"at step {step} of {setting}", "last operations:", *operations)))


async def fuzz(shards: RealShards, setting: Setting) -> Summary:
    """One run over three empty shards. Raises FuzzError for the first thing that is wrong."""
    cluster = Cluster(shards.topology, tuple(shards.shard(index) for index in range(SHARDS)))
    # Recovery tells much; what it and the calls below it report as an error is a finding.
    with capture_logs() as logs:
        world = World(shards, cluster, setting, logs)
        try:
            await world.run()
        except Exception as error:
            what = str(error) if isinstance(error, BrokenError) else f"{type(error).__name__}: {error}"
            raise FuzzError(what, setting, world.step, world.operations) from error
        finally:
            for shard in cluster.shards:
                await shard.close()
    return Summary(world.outcomes, world.books.kinds, len(world.books.legs))


class World:
    """Shards, coordinators, messages on their way, and the books."""

    def __init__(
        self,
        shards: RealShards,
        cluster: Cluster,
        setting: Setting,
        logs: Sequence[MutableMapping[str, Any]],
    ) -> None:
        self.setting = setting
        self.cluster = cluster
        self.rng = Random(setting.seed)
        self.books = Books(cluster)
        self.outcomes: Counter[Outcome] = Counter()
        self.operations: deque[str] = deque(maxlen=_TOLD_OPERATIONS)
        self.step = 0
        self._logs = logs
        self._names = [
            name_on(shards, i, f"account-{i}-{n}") for i in range(SHARDS) for n in range(ACCOUNTS_A_SHARD)
        ]
        self._payloads = Payloads(self.rng, self._names, setting.time_ordered, setting.big)
        self._resolver = Resolver("fuzzer", None, None)  # type: ignore[arg-type]  # neither is needed to resolve
        self._attempts: list[Attempt] = []
        self._late: list[tuple[int, Any]] = []
        # The latest transactions, which may be tried again.
        self._recent: list[Transaction] = []
        # Shards that forgot since nothing was on its way: a second time might be too soon.
        self._rotated: set[int] = set()
        self._begun = 0

    async def run(self) -> None:
        """All steps, then an end to everything. Raises BrokenError, or whatever went wrong otherwise."""
        operations: dict[Callable[[], Awaitable[None]], float] = {
            self._begin: 22,
            self._go_on: 64,
            self._late_message: 5,
            self._recover: 2,
            self._expire: 2,
            self._freeze: 0.5,
            self._rotate_one: 0.3,
            self._rotate_at_rest: 0.5,
            self._fund: 0.8,
            self._check: 1.5,
        }
        doings, weights = list(operations), list(operations.values())
        await self._open_accounts()
        while self.step < self.setting.steps:
            self.step += 1
            await self.rng.choices(doings, weights)[0]()
        await self._come_to_rest()

    # ------------------------------------------------------------------ what attempts use

    def note(self, operation: str) -> None:
        """Adds to what a failure tells."""
        self.operations.append(f"{self.step}: {operation}")

    async def deliver(self, sender: str, index: int, call: Any) -> Any:
        """A message's way to a shard and back."""
        rng = self.rng
        if rng.random() < _LATE_AGAIN:
            self._late.append((index, call))
            del self._late[:-_LATE]
        if rng.random() < _LOST:
            self.note(f"{sender}: {_described(call)} does not reach shard {index}")
            return NoReply.LOST
        answer = await self._carry_out(sender, index, call)
        if rng.random() < _DOUBLED:
            await self._carry_out(f"{sender}, doubled", index, call)
        if rng.random() < _UNANSWERED:
            self.note(f"{sender}: that answer is lost")
            return NoReply.LOST
        return answer

    def tell(self, rows: Sequence[Transaction], codes: Sequence[int]) -> None:
        """Callers get their answers."""
        for row, code in zip(rows, codes, strict=True):
            outcome = Outcome(without_side(code))
            self.outcomes[outcome] += 1
            self.books.told[row.key].add(outcome)

    async def _carry_out(self, sender: str, index: int, call: Any) -> Any:
        told = f"{sender}: {_described(call)} reaches shard {index}"
        try:
            reply = await self.cluster.shards[index].call(call)
        except Exception:
            self.note(f"{told}, which fails")
            raise
        self.note(f"{told} -> {list(reply.codes)}")
        if isinstance(call, (PostJournals, DecideJournals)):
            await self._look_at_holds(index, call.batch)
        return reply

    async def _look_at_holds(self, index: int, batch: Journals) -> None:
        """Notes when new holds end: of the shard's clock only the shard knows."""
        for key, journal in zip(batch.keys, batch.journals, strict=True):
            leg = journal.legs[0]
            name = condition_key(key[:16], leg.account)
            if leg.effect is Effect.HOLD and name not in self.books.hold_ends_ms:
                record = await self.cluster.shards[index].redis.hget("holds", name)
                if isinstance(record, bytes):
                    self.books.hold_ends_ms[name] = int.from_bytes(record[:8], "little")
                    self._payloads.holds.append(Hold(key[:16], leg.account, leg.amount_minor))

    # ------------------------------------------------------------------ operations

    async def _open_accounts(self) -> None:
        """On each shard one plain account, one that may be overdrawn, one full at some time, one limited.

        Those of big amounts may all but one be overdrawn, or nothing big would move for long.
        """
        big = self.setting.big
        for index, name in enumerate(self._names):
            kind = index % ACCOUNTS_A_SHARD
            floor = (1 - MAX_MINOR if kind else 0) if big else (-200 if kind == 1 else 0)
            maximum = (MAX_MINOR - index if big else 800) if kind == 2 else 0
            most = (MAX_MINOR - 7 if big else 70) if kind == 3 else 0
            shard = self.cluster.shards[self._owner(name)]
            await shard.open([name], [slot(name)], [CURRENCY], [floor], [maximum], [most])
            await self._deposit(name, MAX_MINOR // 16 if big else 300)

    def _owner(self, name: str) -> int:
        return self.cluster.owner[slot(name)]

    async def _deposit(self, name: str, amount: int) -> None:
        deposit = self._payloads.deposit(name, amount)
        call = Post(Transfers.of([(deposit.transaction_id, deposit.payload)]))  # type: ignore[list-item]
        reply = await self._carry_out("funding", self._owner(name), call)
        self.tell([deposit], reply.codes)

    async def _begin(self) -> None:
        """One coordinator or more get some transactions, new or seen before."""
        if len(self._attempts) >= _COORDINATORS:
            return
        groups: dict[tuple[bool, int | None], list[Transaction]] = {}
        for _ in range(self.rng.choice((1, 1, 2, 4))):
            row = self._some_transaction()
            if row is None:
                continue
            owners = {self._owner(name) for name in row.accounts if not name.startswith("@")}
            # Two-phase commit on one shard is what a resize leaves behind.
            one_leg = len(row.accounts) == 1
            local = len(owners) == 1 and self.rng.random() < (0.8 if one_leg else 0.5)
            groups.setdefault((row.is_transfer, owners.pop() if local else None), []).append(row)
        for (_, at), rows in groups.items():
            self._begun += 1
            name = f"coordinator {self._begun}"
            self.note(f"{name} begins {', '.join(map(str, rows))}")
            self._attempts.append(Attempt(self, name, rows, local=at is not None))

    def _some_transaction(self) -> Transaction | None:
        rng, recent = self.rng, self._recent
        if recent and rng.random() < 0.35:
            return rng.choice(recent)
        if recent and rng.random() < 0.08:
            # By mistake: another payload under an id that is taken.
            row = self._payloads.draw(rng.choice(recent).transaction_id)
        else:
            row = self._payloads.draw()
            if row is not None and isinstance(row.payload, Terms):
                name = condition_key(row.transaction_id, row.payload.payer)
                self.books.purchases[name] = row.payload.amount_minor
        if row is not None:
            self._recent.append(row)
            del self._recent[:-_RECENT]
        return row

    async def _go_on(self) -> None:
        if self._attempts:
            attempt = self.rng.choice(self._attempts)
            await attempt.go_on()
            if attempt.ended:
                self._attempts.remove(attempt)

    async def _late_message(self) -> None:
        if self._late:
            index, call = self._late.pop(self.rng.randrange(len(self._late)))
            await self._carry_out("late", index, call)
            if self.rng.random() < 0.3:
                self._late.append((index, call))

    async def _recover(self) -> None:
        index = self.rng.randrange(SHARDS)
        self.note(f"recovery looks at shard {index}")
        await self._resolver.resolve(self.cluster, self.cluster.shards[index], 0)

    async def _expire(self) -> None:
        index = self.rng.randrange(SHARDS)
        ended = await self.cluster.shards[index].expire_holds(self.rng.choice((1, 100)))
        self.note(f"{ended} holds end on shard {index}")

    async def _freeze(self) -> None:
        name = self.rng.choice(self._names)
        change = self.rng.choice((Kind.FREEZE, Kind.UNFREEZE, Kind.UNFREEZE, Kind.UNFREEZE))
        self.note(f"{change.name} {name}")
        await self.cluster.shards[self._owner(name)].set_state([name], [change])

    async def _fund(self) -> None:
        for index, shard in enumerate(self.cluster.shards):
            names = [name for name in self._names if self._owner(name) == index]
            for name, account in zip(names, await shard.accounts(names), strict=True):
                if account is not None and account.available_minor < 50:
                    await self._deposit(name, self._payloads.amount(100, 300))

    async def _check(self) -> None:
        await self._compare(at_rest=False)

    async def _rotate_one(self) -> None:
        """A shard forgets in the midst of all: once, so nothing that is on its way."""
        index = self.rng.randrange(SHARDS)
        if index not in self._rotated:
            self._rotated.add(index)
            await self._rotate(index)

    async def _rotate_at_rest(self) -> None:
        """Shards forget, some twice and so for good, as when a window has passed without traffic."""
        await self._come_to_rest()
        for index in range(SHARDS):
            for _ in range(self.rng.choice((1, 2))):
                await self._rotate(index)
        if self.setting.time_ordered:
            del self._recent[:-_OLD]
            self.books.forgotten |= {row.transaction_id for row in self._recent}
        else:
            # Under an id that tells no age they would be new transactions.
            self._recent.clear()

    async def _rotate(self, index: int) -> None:
        self.note(f"shard {index} forgets")
        await self.cluster.shards[index].rotate()

    async def _come_to_rest(self) -> None:
        """All coordinators end, no message is left, and recovery looks at every shard."""
        for attempt in self._attempts:
            while not attempt.ended:
                await attempt.go_on()
        self._attempts.clear()
        self._late.clear()
        for shard in self.cluster.shards:
            await self._resolver.resolve(self.cluster, shard, 0)
        await self._compare(at_rest=True)
        self._rotated.clear()
        # Holds that nobody ends and accounts that stay frozen would bring everything to a stand.
        self._payloads.forget_holds(self.books.holds.keys())
        for index, shard in enumerate(self.cluster.shards):
            names = [name for name in self._names if self._owner(name) == index]
            await shard.set_state(names, [Kind.UNFREEZE] * len(names))

    async def _compare(self, *, at_rest: bool) -> None:
        for event in self._logs:
            if event["log_level"] in ("error", "critical"):
                raise BrokenError(f"nothing is reported as an error: {event}")
        await self.books.check(at_rest=at_rest)


def _described(call: Any) -> str:
    """A call's name and the ends of the ids that it is about."""
    if hasattr(call, "legs"):
        refs: Sequence[LegRef] = call.legs
        keys = [ref.key for ref in refs]
    else:
        keys = next(getattr(call, name) for name in ("transfers", "batch", "keys") if hasattr(call, name))
        keys = getattr(keys, "keys", keys)
    shown = [key[SHOWN].hex() + (f".{key[24]}" if len(key) > 24 else "") for key in keys]
    verdicts = getattr(call, "verdicts", "")
    return f"{type(call).__name__} {' '.join(shown)} {verdicts}".rstrip()
