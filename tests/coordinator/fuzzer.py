"""Random messages around journals, holds, refunds and transfers on three real shards, and what must hold.

Several coordinators at a time try transactions, message by message: each message may be lost, its reply
too; it may come twice, or once more long after. Coordinators die between two steps. Meanwhile recovery
runs, holds end, accounts freeze, money comes in, shards forget, slots move. Every now and then, and whenever
nothing is on its way, the fuzzer's own books (:mod:`tests.coordinator.fuzz_books`) are compared with
everything.

A run is a number of steps drawn from a seed. Only the lives of holds are in real time, so the same seed
gives much the same run again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from structlog.testing import capture_logs

from coordinator.resolver import Resolver
from shard_node.agent.agent import bind
from shard_node.client.asking import NoReply
from shard_node.client.directory import Cluster
from shard_node.client.shard import Shard
from shard_node.cluster.slots import slot
from shard_node.contract.calls import Decide, Finish, Post, Prepare
from shard_node.contract.journal_calls import DecideJournals, Journals, PostJournals
from shard_node.contract.journals import Effect
from shard_node.contract.outcomes import Outcome, without_side
from shard_node.contract.transfers import Kind, Terms, Transfers
from shard_node.errors import StaleEpochError
from shard_node.limits import MAX_MINOR
from tests.coordinator.bank import name_on
from tests.coordinator.fuzz_attempts import Attempt, Setting
from tests.coordinator.fuzz_books import Books, BrokenError
from tests.coordinator.fuzz_messages import Look, described
from tests.coordinator.fuzz_payloads import CURRENCY, Hold, Payloads, Transaction, condition_key
from tests.coordinator.moving import SlotInUseError, move_slot, with_slot_moved
from tests.real_shards import RealShards

SHARDS = 3
ACCOUNTS_A_SHARD = 4
# Coordinators at work at once.
_COORDINATORS = 8
# The latest transactions, some of which are tried again.
_RECENT = 25
# Of them, those that are tried again after they may be forgotten, if their ids tell their age.
_OLD = 8
# The latest bundles, some of which are tried again as they were.
_BUNDLES = 4
# Messages that may still arrive.
_LATE = 60
# Operations that a failure tells.
_TOLD_OPERATIONS = 40
# Shares of messages: never carried out; never answered; twice at once; once more, later.
_BUNDLE_AGAIN = 0.35
_LOST, _UNANSWERED, _DOUBLED, _LATE_AGAIN = 0.1, 0.08, 0.04, 0.2


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did: answers by outcome, kinds of entries in the ledgers, committed transactions.

    ``steps`` are the answers of shards about rows of bundles across shards; ``moves`` counts slots.
    """

    outcomes: Counter[Outcome]
    steps: Counter[Outcome]
    moves: int
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
    initial = shards.topology
    cluster = Cluster(initial, tuple(shards.shard(index) for index in range(SHARDS)))
    # Recovery tells much; what it and the calls below it report as an error is a finding.
    with capture_logs() as logs:
        world = World(shards, cluster, setting, logs)
        try:
            await world.run()
        except Exception as error:
            what = str(error) if isinstance(error, BrokenError) else f"{type(error).__name__}: {error}"
            raise FuzzError(what, setting, world.step, world.operations) from error
        finally:
            # Later epochs share the connections.
            for shard in cluster.shards:
                await shard.close()
            shards.topology = initial
    return Summary(world.outcomes, world.steps, world.moves, world.books.kinds, len(world.books.legs))


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
        self.steps: Counter[Outcome] = Counter()
        self.moves = 0
        # Names of commits that are finished, which wait for a ride, by shard.
        self.settlements: dict[int, list[bytes]] = {}
        self.operations: deque[str] = deque(maxlen=_TOLD_OPERATIONS)
        self.step = 0
        self._shards = shards
        self._logs = logs
        self._names = [
            name_on(shards, i, f"account-{i}-{n}") for i in range(SHARDS) for n in range(ACCOUNTS_A_SHARD)
        ]
        self._payloads = Payloads(self.rng, self._names, setting.time_ordered, setting.big)
        self._resolver = Resolver("fuzzer", None, None)  # type: ignore[arg-type]  # neither is needed to resolve
        self._attempts: list[Attempt] = []
        self._late: list[tuple[Shard, int, Any]] = []
        self._bundles: deque[list[Transaction]] = deque(maxlen=_BUNDLES)
        # The latest transactions, which may be tried again.
        self._recent: list[Transaction] = []
        # Shards that forgot since nothing was on its way: a second time might be too soon.
        self._rotated: set[int] = set()
        self._begun = 0

    async def run(self) -> None:
        """All steps, then an end to everything. Raises BrokenError, or whatever went wrong otherwise."""
        operations: dict[Callable[[], Awaitable[None]], float] = {
            self._begin: 17,
            self._begin_bundle: 6,
            self._go_on: 64,
            self._late_message: 5,
            self._recover: 2,
            self._expire: 2,
            self._freeze: 0.5,
            self._rotate_one: 0.3,
            self._rotate_at_rest: 0.5,
            self._move: 0.6,
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

    async def deliver(self, sender: str, cluster: Cluster, index: int, call: Any) -> Any:
        """A message's way to a shard, as the sender's map has it, and back."""
        rng, shard = self.rng, cluster.shards[index]
        if rng.random() < _LATE_AGAIN and not isinstance(call, Look):
            self._late.append((shard, index, call))
            del self._late[:-_LATE]
        if rng.random() < _LOST:
            self.note(f"{sender}: {described(call)} does not reach shard {index}")
            return NoReply.LOST
        answer = await self._carry_out(sender, shard, index, call)
        if rng.random() < _DOUBLED:
            await self._carry_out(f"{sender}, doubled", shard, index, call)
        if rng.random() < _UNANSWERED:
            self.note(f"{sender}: that answer is lost")
            return NoReply.LOST
        return answer

    def settle_later(self, names: Mapping[int, Sequence[bytes]]) -> None:
        """These commits are finished; the next decide of their shard shall tell it."""
        for index, finished in names.items():
            self.settlements.setdefault(index, []).extend(finished)

    def tell(self, rows: Sequence[Transaction], codes: Sequence[int]) -> None:
        """Callers get their answers."""
        for row, code in zip(rows, codes, strict=True):
            outcome = Outcome(without_side(code))
            self.outcomes[outcome] += 1
            self.books.told[row.key].add(outcome)

    async def _carry_out(self, sender: str, shard: Shard, index: int, call: Any) -> Any:
        told = f"{sender}: {described(call)} reaches shard {index}"
        try:
            if isinstance(call, Look):
                return await shard.commits(call.names)
            reply = await shard.call(call)
        except StaleEpochError:
            self.note(f"{told} too late")
            if shard.fence == self.cluster.shards[index].fence:
                raise
            return NoReply.STALE
        except Exception:
            self.note(f"{told}, which fails")
            raise
        self.note(f"{told} -> {[c.hex() if isinstance(c, bytes) else c for c in reply.codes]}")
        if isinstance(call, (Prepare, Decide, Finish)):
            self.steps.update(Outcome(without_side(code)) for codes in reply.codes for code in codes)
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
        transfers = Transfers.of([(deposit.transaction_id, deposit.payload)])  # type: ignore[list-item]
        index = self._owner(name)
        call = Post(transfers.bundle())
        reply = await self._carry_out("funding", self.cluster.shards[index], index, call)
        self.tell([deposit], reply.codes[0])

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
            # Two-phase commit of a journal on one shard is what a resize leaves behind.
            share = 1 if row.is_transfer else 0.8 if len(row.accounts) == 1 else 0.5
            local = len(owners) == 1 and self.rng.random() < share
            groups.setdefault((row.is_transfer, owners.pop() if local else None), []).append(row)
        for (_, at), rows in groups.items():
            self._begin_with(rows, local=at is not None)

    def _begin_with(self, rows: Sequence[Transaction], *, local: bool) -> None:
        self._begun += 1
        name = f"coordinator {self._begun}"
        self.note(f"{name} begins {', '.join(map(str, rows))}")
        self._attempts.append(Attempt(self, name, rows, local=local))

    async def _begin_bundle(self) -> None:
        """A coordinator gets several transfers between two shards, or a bundle that was tried before."""
        if len(self._attempts) >= _COORDINATORS:
            return
        again = self._bundles and self.rng.random() < _BUNDLE_AGAIN
        rows = self.rng.choice(self._bundles) if again else self._some_bundle()
        across = [row for row in rows if len({self._owner(name) for name in row.accounts}) > 1]
        if across:
            self._bundles.append(rows)
            self._begin_with(across, local=False)

    def _some_bundle(self) -> list[Transaction]:
        rng = self.rng
        owners = sorted({self._owner(name) for name in self._names})
        pair = rng.sample(owners, 2) if len(owners) > 1 else owners * 2
        payers, payees = ([name for name in self._names if self._owner(name) == at] for at in pair)
        others = [row for row in self._recent if row.is_transfer and row.accounts[0] in payers]
        rows: list[Transaction] = []
        for _ in range(rng.randint(2, 5)):
            draw = rng.random()
            if rows and draw < 0.12:
                rows.append(rng.choice(rows))
            elif others and draw < 0.25:
                rows.append(rng.choice(others))
            else:
                # By mistake: another payload under an id that is taken.
                reused = rng.choice(self._recent).transaction_id if self._recent and draw < 0.3 else None
                rows.append(self._payloads.transfer(payers, payees, reused))
                self._remember(rows[-1], is_new=reused is None)
        return rows

    def _some_transaction(self) -> Transaction | None:
        rng, recent = self.rng, self._recent
        if recent and rng.random() < 0.35:
            return rng.choice(recent)
        # By mistake: another payload under an id that is taken.
        reused = rng.choice(recent).transaction_id if recent and rng.random() < 0.08 else None
        row = self._payloads.draw(reused)
        if row is not None:
            self._remember(row, is_new=reused is None)
        return row

    def _remember(self, row: Transaction, *, is_new: bool) -> None:
        if is_new and isinstance(row.payload, Terms):
            name = condition_key(row.transaction_id, row.payload.payer)
            self.books.purchases[name] = row.payload.amount_minor
        self._recent.append(row)
        del self._recent[:-_RECENT]

    async def _go_on(self) -> None:
        if self._attempts:
            attempt = self.rng.choice(self._attempts)
            await attempt.go_on()
            if attempt.ended:
                self._attempts.remove(attempt)

    async def _late_message(self) -> None:
        if self._late:
            message = self._late.pop(self.rng.randrange(len(self._late)))
            await self._carry_out("late", *message)
            if self.rng.random() < 0.3:
                self._late.append(message)

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

    async def _move(self) -> None:
        """A slot goes to another shard, with all that a resize carries over, if nothing is in its way."""
        name, target = self.rng.choice(self._names), self.rng.randrange(SHARDS)
        source, moved = self._owner(name), slot(name)
        if source == target:
            return
        await self.books.read()
        try:
            await move_slot(self.cluster, moved, target)
        except SlotInUseError:
            self.note(f"{name} cannot move to shard {target}")
            return
        topology = with_slot_moved(self.cluster.topology, moved, target)
        self._shards.topology = topology
        shards = list(self.cluster.shards)
        for index in (source, target):
            info, redis = topology.shards[index], shards[index].redis
            await bind(redis, topology, info.shard_id, self._shards.window_ms)
            shards[index] = Shard(info.shard_id, topology.fence(info), redis)
        self.cluster = self.books.cluster = Cluster(topology, tuple(shards))
        self.moves += 1
        self.note(f"{name} moves to shard {target}")

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
        self._bundles.clear()
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
