"""Random messages around journals, holds, refunds and transfers on three shards, and what must hold.

Several coordinators at a time try transactions, message by message: each message may be lost, its answer
too; it may come twice, or once more long after, also when its shard has forgotten all that it was about.
Coordinators die between two steps. Meanwhile recovery runs, holds end, accounts freeze, money comes in,
shards forget, slots move. Every command goes to the engine and to the plain model; their answers are compared
each time, all that they hold now and then. What must hold of all shards together is then looked at in the
models (:mod:`tests.coordinator.fuzz_checks`).

A run is a number of steps drawn from a seed, by clocks that are set: the same seed gives the same run again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from coordinator.resolver import Resolver
from shard_node.client import NoReply, Shard, connect
from shard_node.cluster.slots import slot
from shard_node.cluster.topology import Topology
from shard_node.contract import (
    AccountTerms,
    Answer,
    Command,
    Decide,
    Finish,
    Kind,
    Outcome,
    Post,
    Prepare,
    Transaction,
    new_attempt_id,
)
from shard_node.errors import StaleEpochError
from shard_node.limits import MAX_MINOR
from tests.coordinator.bank import name_on
from tests.coordinator.fuzz_checks import Checks
from tests.coordinator.fuzz_coordinator import Coordinator, Setting, described
from tests.coordinator.fuzz_payloads import Payloads, key_of, shown
from tests.coordinator.fuzz_shards import BrokenError, FuzzShard, Place, Twin, require
from tests.coordinator.payloads import posted_bundle, shards_of
from tests.model import Faults
from tests.real_shards import SHARDS, RealShards, with_slot_moved

ACCOUNTS_A_SHARD = 4
NOW_MS = 1_800_000_000_000
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
# How much the clocks of coordinators differ from those of shards.
_SKEW_MS = 20


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did: answers to callers, codes of shards, kinds in the ledgers, committed transactions."""

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


async def fuzz(shards: RealShards | None, setting: Setting) -> Summary:
    """One run over three empty shards, which need servers unless the setting has faults.

    Raises FuzzError for the first thing that is wrong.
    """
    # Recovery tells much; what it and the calls below it report as an error is a finding.
    with capture_logs() as logs:
        world = World(None if setting.faults else shards, setting, logs)
        try:
            await world.run()
        except Exception as error:
            what = str(error) if isinstance(error, BrokenError) else f"{type(error).__name__}: {error}"
            raise FuzzError(what, setting, world.step, world.operations) from error
        finally:
            await world.close()
    return world.summary()


@dataclass(slots=True)
class _Late:
    """A message that may arrive once more."""

    shard: FuzzShard
    call: Command


class World:
    """Shards, coordinators, messages on their way, and what must hold."""

    def __init__(
        self, shards: RealShards | None, setting: Setting, logs: Sequence[MutableMapping[str, Any]]
    ) -> None:
        self.setting = setting
        self.rng = Random(setting.seed)
        self.outcomes: Counter[Outcome] = Counter()
        self.codes: Counter[Outcome] = Counter()
        self.moves = 0
        self.now_ms = NOW_MS
        # What is finished and waits for a ride, by shard.
        self.settlements: dict[int, list[tuple[bytes, int]]] = {}
        self.operations: deque[str] = deque(maxlen=_TOLD_OPERATIONS)
        self.step = 0
        self.topology = (
            shards.topology if shards else Topology.initial("test", [f"shard-{i}" for i in range(SHARDS)])
        )
        self._logs = logs
        self._ground = shards
        self._places = [self._place(index) for index in range(SHARDS)]
        self._connections = [connect(info.primary) for info in self.topology.shards] if shards else []
        self.shards = self._shards()
        self._names = [
            name_on(self, i, f"account-{i}-{n}") for i in range(SHARDS) for n in range(ACCOUNTS_A_SHARD)
        ]
        self.checks = Checks([place.model for place in self._places], [s.shard_id for s in self.shards])
        self._payloads = Payloads(self.rng, self._names, self._is_held, setting.time_ordered, setting.big)
        self._resolver = Resolver("fuzzer", None, None)  # type: ignore[arg-type]  # neither is needed to resolve
        self._coordinators: list[Coordinator] = []
        self._late: list[_Late] = []
        self._bundles: deque[list[Transaction]] = deque(maxlen=_BUNDLES)
        # The latest transactions, which may be tried again.
        self._recent: list[Transaction] = []
        # Shards that forgot since nothing was on its way: a second time would make old ids new ones.
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
            self._expire: 4,
            self._freeze: 0.5,
            self._rotate_one: 0.6,
            self._rotate_at_rest: 0.5,
            self._move: 0.8,
            self._fund: 0.8,
            self._check: 1.5,
        }
        doings, weights = list(operations), list(operations.values())
        await self._open_accounts()
        while self.step < self.setting.steps:
            self.step += 1
            self._wait(self.rng.choice((0, 0, 1, 2, 5)))
            await self.rng.choices(doings, weights)[0]()
        await self._come_to_rest()

    def summary(self) -> Summary:
        """What was done."""
        kinds = {entry.kind for place in self._places for entry in place.model.ledger}
        return Summary(self.outcomes, self.codes, self.moves, kinds, len(self.checks.committed))

    async def close(self) -> None:
        """Closes the connections."""
        for shard in self.shards:
            if shard.real:
                await shard.real.close()

    # ------------------------------------------------------------------ what coordinators use

    def note(self, operation: str) -> None:
        """Adds to what a failure tells."""
        self.operations.append(f"{self.step}: {operation}")

    def new_attempt_id(self) -> bytes:
        """An id by a coordinator's clock."""
        start_ms = self.now_ms + self.rng.randint(-_SKEW_MS, _SKEW_MS)
        return new_attempt_id(start_ms)[:6] + self.rng.randbytes(10)

    def may_abandon(self, attempt_id: bytes) -> bool:
        """Safe at any age: also of those whose coordinator is at work."""
        del attempt_id
        return self.rng.random() < 0.7

    async def deliver(self, sender: str, shard: FuzzShard, call: Command) -> Answer | NoReply:
        """A message's way to a shard, as the sender's map has it, and back."""
        rng, index = self.rng, shard.place.index
        if rng.random() < _LATE_AGAIN:
            self._late.append(_Late(shard, call))
            del self._late[:-_LATE]
        if rng.random() < _LOST:
            self.note(f"{sender}: {described(call)} does not reach shard {index}")
            return NoReply.LOST
        answer = await self._carry_out(sender, shard, call)
        if rng.random() < _DOUBLED:
            await self._carry_out(f"{sender}, doubled", shard, call)
        if rng.random() < _UNANSWERED:
            self.note(f"{sender}: that answer is lost")
            return NoReply.LOST
        return answer

    def settle_later(self, settled: Mapping[int, Sequence[tuple[bytes, int]]]) -> None:
        """These are finished; the next decide of their shard shall carry it."""
        for index, pairs in settled.items():
            self.settlements.setdefault(index, []).extend(pairs)

    def answer(self, rows: Sequence[Transaction], outcomes: Sequence[Outcome]) -> None:
        """Callers get their answers."""
        for row, outcome in zip(rows, outcomes, strict=True):
            self.outcomes[outcome] += 1
            # Whether an id that tells its age is forgotten by now, or its outcome came first, nobody can say.
            if outcome is not Outcome.TRANSACTION_ID_EXPIRED or not self.setting.time_ordered:
                self.checks.answered[key_of(row)].add(outcome)

    async def _carry_out(self, sender: str, shard: FuzzShard, call: Command) -> Answer | NoReply:
        told = f"{sender}: {described(call)} reaches shard {shard.place.index}"
        try:
            answer = await shard.call(call)
        except StaleEpochError:
            self.note(f"{told} too late")
            require(shard.fence != self.shards[shard.place.index].fence, "the present epoch is taken")
            return NoReply.STALE
        except Exception:
            self.note(f"{told}, which fails")
            raise
        self.note(f"{told} -> {[codes.hex() for codes in answer.codes]}")
        if isinstance(call, (Prepare, Decide, Finish)):
            self.codes.update(Outcome(code) for codes in answer.codes for code in codes if code)
        return answer

    # ------------------------------------------------------------------ operations

    def _place(self, index: int) -> Place:
        if self._ground is None:
            return Place(self.topology, index, None, self.setting.faults or Faults(), self.now_ms)
        name, _, epoch = self.topology.fence(self.topology.shards[index]).rpartition("/")
        twin = Twin(self._ground.servers[index], name, int(epoch), self.now_ms)
        return Place(self.topology, index, twin, Faults(), self.now_ms)

    def _shards(self) -> list[FuzzShard]:
        """The shards by the present topology."""
        made = []
        for index, info in enumerate(self.topology.shards):
            fence = self.topology.fence(info)
            real = Shard(info.shard_id, fence, self._connections[index]) if self._ground else None
            made.append(FuzzShard(info.shard_id, fence, self._places[index], real))
        return made

    def _wait(self, ms: int) -> None:
        if ms:
            self.now_ms += ms
            for place in self._places:
                place.wait_until(self.now_ms)

    async def _open_accounts(self) -> None:
        """On each shard one plain account, one that may be overdrawn, one full at some time, one limited.

        Those of big amounts may all but one be overdrawn, or nothing big would move for long.
        """
        big = self.setting.big
        for index, name in enumerate(self._names):
            kind = index % ACCOUNTS_A_SHARD
            minimum = (1 - MAX_MINOR if kind else 0) if big else (-200 if kind == 1 else 0)
            maximum = (MAX_MINOR - index if big else 350) if kind == 2 else 0
            most = (MAX_MINOR - 7 if big else 70) if kind == 3 else 0
            terms = AccountTerms(name, slot(name), "EUR", minimum, maximum, most)
            self._places[self._owner(name)].open(terms)
            await self._deposit(name, MAX_MINOR // 16 if big else 300)

    def _owner(self, name: str) -> int:
        return self.topology.owner[slot(name)]

    def _is_held(self, name: bytes) -> bool:
        return any(name in place.model.holds for place in self._places)

    async def _deposit(self, name: str, amount: int) -> None:
        row = self._payloads.deposit(name, amount)
        self.checks.transactions[key_of(row)] = row
        answer = await self._carry_out("funding", self.shards[self._owner(name)], Post(posted_bundle([row])))
        assert isinstance(answer, Answer)
        self.answer([row], [Outcome(answer.codes[0][0])])

    async def _begin(self) -> None:
        """One coordinator or more get some transactions, new or seen before."""
        if len(self._coordinators) >= _COORDINATORS:
            return
        here: dict[int, list[Transaction]] = {}
        across: list[Transaction] = []
        for _ in range(self.rng.choice((1, 1, 2, 4))):
            row = self._some_transaction()
            if row is not None:
                first, *others = shards_of(row, self.topology.owner)
                (across if others else here.setdefault(first, [])).append(row)
        for rows in here.values():
            self._begin_with(rows, local=True)
        if across:
            self._begin_with(across, local=False)

    def _begin_with(self, rows: Sequence[Transaction], *, local: bool) -> None:
        self._begun += 1
        name = f"coordinator {self._begun}"
        self.note(f"{name} begins {', '.join(map(shown, rows))}")
        self._coordinators.append(Coordinator(self, name, rows, local=local))

    async def _begin_bundle(self) -> None:
        """A coordinator gets several transfers between two shards, or a bundle that was tried before."""
        if len(self._coordinators) >= _COORDINATORS:
            return
        again = self._bundles and self.rng.random() < _BUNDLE_AGAIN
        rows = self.rng.choice(self._bundles) if again else self._some_bundle()
        across = [row for row in rows if len(shards_of(row, self.topology.owner)) > 1]
        if across:
            self._bundles.append(rows)
            self._begin_with(across, local=False)

    def _some_bundle(self) -> list[Transaction]:
        rng = self.rng
        owners = sorted({self._owner(name) for name in self._names})
        pair = rng.sample(owners, 2) if len(owners) > 1 else owners * 2
        payers, payees = ([name for name in self._names if self._owner(name) == at] for at in pair)
        others = [row for row in self._recent if row.is_plain and row.legs[0].account in payers]
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
                self._remember(rows[-1])
        return rows

    def _some_transaction(self) -> Transaction | None:
        rng, recent = self.rng, self._recent
        if recent and rng.random() < 0.35:
            return rng.choice(recent)
        # By mistake: another payload under an id that is taken.
        reused = rng.choice(recent).transaction_id if recent and rng.random() < 0.08 else None
        row = self._payloads.draw(reused)
        if row is not None:
            self._remember(row)
        return row

    def _remember(self, row: Transaction) -> None:
        self.checks.transactions[key_of(row)] = row
        self._recent.append(row)
        del self._recent[:-_RECENT]

    async def _go_on(self) -> None:
        if self._coordinators:
            coordinator = self.rng.choice(self._coordinators)
            await coordinator.go_on()
            if coordinator.ended:
                self._coordinators.remove(coordinator)

    async def _late_message(self) -> None:
        if self._late:
            late = self._late.pop(self.rng.randrange(len(self._late)))
            await self._carry_out("late", late.shard, late.call)
            if self.rng.random() < 0.3:
                self._late.append(late)

    async def _recover(self) -> None:
        await self._look(self.rng.randrange(SHARDS))

    async def _look(self, index: int) -> None:
        self.note(f"recovery looks at shard {index}")
        cluster: Any = SimpleNamespace(shards=self.shards, shard_ids=[s.shard_id for s in self.shards])
        await self._resolver.resolve(cluster, cluster.shards[index], 0)

    async def _expire(self) -> None:
        index = self.rng.randrange(SHARDS)
        self.note(f"holds end on shard {index}")
        self._places[index].expire(self.rng.choice((1, 100)))

    async def _freeze(self) -> None:
        name = self.rng.choice(self._names)
        change = self.rng.choice((Kind.FREEZE, Kind.UNFREEZE, Kind.UNFREEZE, Kind.UNFREEZE))
        self.note(f"{change.name} {name}")
        self._places[self._owner(name)].set_state([name], change)

    async def _move(self) -> None:
        """A slot goes to another shard, with all that it holds, if nothing is in its way.

        Horizons are for a resize to carry over: so not where ids tell their age.
        """
        name, target = self.rng.choice(self._names), self.rng.randrange(SHARDS)
        source, moved = self._owner(name), slot(name)
        if source == target or self.setting.time_ordered:
            return
        if not self._places[source].model.is_drained(moved):
            self.note(f"{name} cannot move to shard {target}")
            return
        self.checks.read_ledgers()
        self._places[source].model.move_slot(moved, self._places[target].model)
        if self._ground:
            self._ground.move(moved, target)
            self.topology = self._ground.topology
        else:
            self.topology = with_slot_moved(self.topology, moved, target)
        for place in self._places:
            place.bind(self.topology)
        self.shards = self._shards()
        self.moves += 1
        self.note(f"{name} moves to shard {target}")

    async def _fund(self) -> None:
        for name in self._names:
            account = self._places[self._owner(name)].model.known(name)
            if account.available_minor < 50:
                await self._deposit(name, self._payloads.amount(100, 300))

    async def _check(self) -> None:
        self._compare(at_rest=False)

    async def _rotate_one(self) -> None:
        """A shard forgets in the midst of all, if no commit is from before the last time (R10).

        Under ids that tell no age only once, for the second time would make new ones of them.
        """
        index = self.rng.randrange(SHARDS)
        since_ms = self._places[index].model.rotated_ms
        commits = [commit for place in self._places for commit in place.model.commits.values()]
        again = index in self._rotated and not self.setting.time_ordered
        if not again and all(commit.since_ms >= since_ms for commit in commits):
            self._rotated.add(index)
            self._rotate(index)

    async def _rotate_at_rest(self) -> None:
        """Shards forget, some twice and so for good, as when a window has passed without traffic."""
        await self._come_to_rest()
        self._wait(1_000_000)
        self._bundles.clear()
        for index in range(SHARDS):
            for _ in range(self.rng.choice((1, 2))):
                self._rotate(index)
        if self.setting.time_ordered:
            del self._recent[:-_OLD]
        else:
            # Under an id that tells no age they would be new transactions; attempts tell theirs.
            self._recent.clear()
            self._late = [late for late in self._late if not isinstance(late.call, Post)]

    def _rotate(self, index: int) -> None:
        self.note(f"shard {index} forgets")
        self._places[index].rotate()
        for coordinator in self._coordinators:
            if index in coordinator.aged:
                # It was stopped for so long that it must not go on.
                coordinator.die()
            coordinator.aged.add(index)
        self._coordinators = [one for one in self._coordinators if not one.ended]

    async def _come_to_rest(self) -> None:
        """All coordinators end, and recovery looks at every shard."""
        for coordinator in self._coordinators:
            while not coordinator.ended:
                await coordinator.go_on()
        self._coordinators.clear()
        for index in range(SHARDS):
            await self._look(index)
        self._compare(at_rest=True)
        self._rotated.clear()
        # Holds that nobody ends and accounts that stay frozen would bring everything to a stand.
        self._payloads.forget_holds()
        for index, place in enumerate(self._places):
            names = [name for name in self._names if self._owner(name) == index]
            if names:
                place.set_state(names, Kind.UNFREEZE)

    def _compare(self, *, at_rest: bool) -> None:
        for event in self._logs:
            require(event["log_level"] not in {"error", "critical"}, "nothing is reported as an error", event)
        self.checks.check(at_rest=at_rest)
        for place in self._places:
            place.compare()
