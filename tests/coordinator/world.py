"""An exhaustive search over every order of events around a few transactions.

The world is small: a few accounts, each in a slot of its own; two or three shards, which are the plain
model that the function library is tested against; a few tries of transactions, each by a coordinator
(or a router's single call, when all accounts share a shard); a resolver; a network. What decides is
the product's own code: the machines of :mod:`coordinator.protocol` and its like.

The network keeps every message ever sent, and may deliver any of them at any time, any number of
times, or never. That is loss, duplication, reordering and delay past a connection's death in one.
A reply reaches the sender at once or never: a late reply is the same as a late next message. A
coordinator may give up or die at any point. A resize moves a slot, with all that belongs to it,
between any two events, and raises the epochs of both shards.

Searched breadth first, so the trace of a violation is a shortest one. What transfers and journals do not
share is in :mod:`tests.coordinator.explorer` and :mod:`tests.coordinator.journal_explorer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from shard_node.agent.rotation import Peer, may_rotate
from shard_node.client.asking import NoReply
from shard_node.contract.outcomes import Outcome, without_side
from tests.model import Faults, ShardModel

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")


class Frozen(NamedTuple):
    """One shard's state, hashable: the model's fields of the same names. Worlds have its number."""

    accounts: frozenset[Any]
    decided: frozenset[Any]
    applied: frozenset[bytes]
    prepared: frozenset[Any]
    unsettled: frozenset[Any]
    attempts: frozenset[Any]
    commits: frozenset[Any]
    ended: frozenset[bytes]
    alarms: int
    holds: frozenset[Any]
    refunds: frozenset[Any]


# A shard's answer: the columns of its reply, or why there is none.
Columns = tuple[Any, ...]

# A resolver needs no more than this many looks; if it does, it does not come to an end.
MAX_LOOKS = 16


class ViolationError(AssertionError):
    """A state that must not be; ``trace`` are the events that lead to it."""

    def __init__(self, what: str, trace: list[str]) -> None:
        super().__init__(what + "\n  " + "\n  ".join(trace))
        self.what = what
        self.trace = trace


@dataclass(frozen=True, slots=True)
class WorldSetting:
    """What every instance to search has.

    ``tries`` are names of payloads, one a try. ``start`` is the shard of each slot. ``moves`` bounds the
    slots moved, ``forgets`` how often a shard may forget what it remembered; nothing else lives as
    long as that takes. ``environment`` are events from outside, each at any moment, once.
    """

    tries: tuple[str, ...]
    start: tuple[int, ...]
    shards: int = 2
    moves: int = 1
    forgets: int = 0
    environment: tuple[str, ...] = ()
    may_rotate: Callable[[float, float, Sequence[Peer]], bool] = may_rotate
    faults: Faults = field(default_factory=Faults)


class Message(NamedTuple):
    """A call on its way: to which shard, at which epoch; ``call`` indexes the explorer's calls."""

    shard: int
    epoch: int
    call: int


class Step(NamedTuple):
    """What a coordinator does next: wait for the first of ``calls`` (shard, call), or tell ``outcome``.

    ``settles`` are the messages (shard, call) that it sends in the end.
    """

    calls: tuple[tuple[int, int], ...]
    outcome: int = 0
    settles: tuple[tuple[int, int], ...] = ()


class Try(NamedTuple):
    """A coordinator at work on a payload. ``answers`` are those it has got, a call a step.

    ``number`` tells tries of one payload apart, where that matters to the shards.
    """

    payload: str
    number: int
    placement: tuple[int, ...]
    epochs: tuple[int, ...]
    answers: tuple[Columns, ...]


class Scan(NamedTuple):
    """The resolver at work on one entry it found on the shard ``home``, prepared or unsettled."""

    prepared: bool
    home: int
    entry: Hashable
    placement: tuple[int, ...]
    epochs: tuple[int, ...]
    answers: tuple[Columns, ...]


class World(NamedTuple):
    """One state.

    ``shards`` are numbers of frozen ones, and ``tries`` of those that are under way; ``told`` the definite
    outcomes that clients were given.
    """

    shards: tuple[int, ...]
    placement: tuple[int, ...]
    epochs: tuple[int, ...]
    waiting: tuple[str, ...]
    tries: tuple[int, ...]
    scan: Scan | None
    network: frozenset[Message]
    told: frozenset[tuple[str, int]]
    moves: int
    forgets: int
    environment: tuple[str, ...]

    def after(
        self,
        shards: tuple[int, ...],
        tries: tuple[int, ...],
        scan: Scan | None,
        network: frozenset[Message],
        told: frozenset[tuple[str, int]],
    ) -> World:
        """The same with what most events change; a search spends much of its time here."""
        return World(
            shards,
            self.placement,
            self.epochs,
            self.waiting,
            tries,
            scan,
            network,
            told,
            self.moves,
            self.forgets,
            self.environment,
        )


def _number(value: T, values: list[T], numbers: dict[T, int]) -> int:
    """A value's place among those that came before; a new one is added to them."""
    number = numbers.setdefault(value, len(values))
    if number == len(values):
        values.append(value)
    return number


class Explorer(ABC):
    """Searches one setting; :meth:`run` raises ViolationError or returns how many states there are."""

    def __init__(self, setting: WorldSetting, slots: Iterable[int]) -> None:
        self.world_setting = setting
        self.slots = sorted(slots)
        self._frozen: list[Frozen] = []
        self._frozen_numbers: dict[Frozen, int] = {}
        self._tries: list[Try] = []
        self._try_numbers: dict[Try, int] = {}
        self._calls: list[Any] = []
        self._index: dict[tuple[object, ...], int] = {}
        # Bound caches: one explorer's answers must not leak into another's.
        self.deliver = lru_cache(maxsize=None)(self._deliver)
        self.next_step = lru_cache(maxsize=None)(self._next_step)
        self.name = lru_cache(maxsize=None)(self._name)
        self.next_scan = lru_cache(maxsize=None)(self._next_scan)
        self.heals = lru_cache(maxsize=None)(self._heals)
        self.is_dead = lru_cache(maxsize=None)(self._is_dead)
        # All that :meth:`broken` looks at.
        self.verdict = lru_cache(maxsize=None)(self._verdict)

    # ------------------------------------------------------------------ what a family of transactions adds

    @abstractmethod
    def open_accounts(self, shards: Sequence[ShardModel]) -> None:
        """Opens the accounts, with what they have, on the shards of ``start``."""

    @abstractmethod
    def step_of(self, attempt: Try) -> Step:
        """The next step of a try."""

    @abstractmethod
    def recovery(self, scan: Scan) -> Any:
        """The resolver's machine for what it found."""

    @abstractmethod
    def call_name(self, call: Any) -> tuple[object, ...]:
        """What tells one call from all others."""

    @abstractmethod
    def answer(self, columns: Columns) -> Any:
        """The reply that a machine is fed."""

    @abstractmethod
    def entries(self, shard: Frozen) -> tuple[Iterable[Hashable], Iterable[Hashable]]:
        """What a resolver may find on a shard: prepared, and unsettled."""

    @abstractmethod
    def payload_of(self, entry: Any) -> str:
        """The payload that an entry belongs to."""

    def does_nothing_ever(self, shard: Frozen, call: Any) -> bool:
        """Whether a call can change a shard in this state neither now nor later, whatever else happens.

        Later is until a slot moves from or to the shard, or it forgets: no message lives as long as that.
        """
        del shard, call
        return False

    def may_move(self, slot: int, old: Frozen) -> bool:
        """Whether a resize may take the slot from a shard that is in this state."""
        del slot, old
        return True

    def number_of(self, w: World) -> int:
        """The number of the next try.

        The same for all makes fewer states, where tries need not be told apart.
        """
        del w
        return 0

    @abstractmethod
    def move(self, slot: int, old: ShardModel, new: ShardModel) -> None:
        """Moves all that belongs to a slot."""

    @abstractmethod
    def happens(self, event: str, shards: Sequence[ShardModel], placement: Sequence[int]) -> None:
        """Carries out an event from outside."""

    @abstractmethod
    def broken(self, w: World) -> str | None:
        """What is wrong with the state, or None."""

    def left_over(self, shards: Sequence[ShardModel]) -> str | None:
        """What is wrong when the resolver is through and nothing is in doubt, or None."""
        del shards
        return None

    # ------------------------------------------------------------------ shards

    def frozen(self, number: int) -> Frozen:
        """The shard's state of that number."""
        return self._frozen[number]

    def thaw(self, number: int) -> ShardModel:
        """A shard to work on."""
        frozen = self._frozen[number]
        return ShardModel(
            accounts=dict(frozen.accounts),
            decided=dict(frozen.decided),
            applied=set(frozen.applied),
            prepared=dict(frozen.prepared),
            unsettled=dict(frozen.unsettled),
            attempts=dict(frozen.attempts),
            commits=dict(frozen.commits),
            ended=set(frozen.ended),
            # Read only near the limit of 2^53, where nobody here comes.
            incoming_minor={},
            alarms=frozen.alarms,
            holds=dict(frozen.holds),
            refunds=dict(frozen.refunds),
            faults=self.world_setting.faults,
        )

    def freeze(self, shard: ShardModel) -> int:
        """The number of a shard's state: of all that matters of it."""
        frozen = Frozen(
            frozenset(shard.accounts.items()),
            frozenset(shard.decided.items()),
            frozenset(shard.applied),
            frozenset(shard.prepared.items()),
            frozenset(shard.unsettled.items()),
            frozenset(shard.attempts.items()),
            frozenset(shard.commits.items()),
            frozenset(shard.ended),
            shard.alarms,
            frozenset(shard.holds.items()),
            frozenset(shard.refunds.items()),
        )
        return _number(frozen, self._frozen, self._frozen_numbers)

    def _deliver(self, number: int, call: int) -> tuple[int, Columns]:
        shard = self.thaw(number)
        reply: Any = shard.call(self._calls[call])
        return self.freeze(shard), tuple(tuple(getattr(reply, name)) for name in reply.__slots__)

    def intern(self, call: Any) -> int:
        """The number of a call, the same for equal calls."""
        name = self.call_name(call)
        if name not in self._index:
            self._index[name] = len(self._calls)
            self._calls.append(call)
        return self._index[name]

    def _name(self, call: int) -> str:
        value = self._calls[call]
        verdicts: list[int] = []
        for part in getattr(value, "verdicts", ()):
            verdicts += part if isinstance(part, bytes) else (part,)
        name: str = value.FUNCTION
        return name + "".join(f"({Outcome(without_side(v)).name if v else 'go'})" for v in verdicts)

    # ------------------------------------------------------------------ what the product decides

    def walk(
        self, calls: Mapping[int, Any], feeds: Sequence[Callable[..., Any] | None], answers: Sequence[Columns]
    ) -> tuple[tuple[int, int], ...]:
        """Feeds a machine all answers; the calls of its step that have none yet, () at the end."""
        left = iter(answers)
        for feed in feeds:
            got: dict[int, Any] = {}
            waiting = list(calls.items())
            for position, (shard, _) in enumerate(waiting):
                answer = next(left, None)
                if answer is None:
                    return tuple((index, self.intern(call)) for index, call in waiting[position:])
                got[shard] = answer[0] if isinstance(answer[0], NoReply) else self.answer(answer)
            calls = (feed(got) or {}) if feed else {}
        return ()

    def _next_step(self, number: int) -> tuple[Step, frozenset[Message]]:
        """The next step of the try of that number, with the messages that it sends."""
        attempt = self._tries[number]
        step = self.step_of(attempt)
        sent = step.calls or step.settles
        return step, frozenset(Message(shard, attempt.epochs[shard], call) for shard, call in sent)

    def _next_scan(self, scan: Scan) -> tuple[tuple[int, int], ...]:
        """The resolver's next calls as (shard, call), () when it is through with the entry."""
        recovery = self.recovery(scan)
        return self.walk(recovery.resolve(), (recovery.finish, recovery.settle, None), scan.answers)

    # ------------------------------------------------------------------ events

    def initial(self) -> World:
        """The world before anything happened."""
        s = self.world_setting
        shards = [ShardModel(faults=s.faults) for _ in range(s.shards)]
        self.open_accounts(shards)
        return World(
            tuple(self.freeze(shard) for shard in shards),
            s.start,
            (1,) * s.shards,
            tuple(sorted(s.tries)),
            (),
            None,
            frozenset(),
            frozenset(),
            s.moves,
            s.forgets,
            s.environment,
        )

    def events(self, w: World) -> Iterator[tuple[str, World]]:
        """Every event that can happen next, with the world after it."""
        for payload in sorted(set(w.waiting)):
            waiting = list(w.waiting)
            waiting.remove(payload)
            attempt = Try(payload, self.number_of(w), w.placement, w.epochs, ())
            begun = w._replace(waiting=tuple(waiting))
            yield f"a try begins: {payload}", self._go(begun, attempt, w.tries, w.shards)
        for number in set(w.tries):
            yield from self._try_events(w, number)
        yield from self._scan_events(w)
        yield from self._network_events(w)
        if w.moves:
            for slot in self.slots:
                for target in range(self.world_setting.shards):
                    source = w.placement[slot]
                    if target != source and self.may_move(slot, self.frozen(w.shards[source])):
                        yield f"slot {slot} moves to shard {target}", self._moved(w, slot, target)
        yield from self._forget_events(w)
        for event in w.environment:
            yield event, self._happened(w, event)

    def _forget_events(self, w: World) -> Iterator[tuple[str, World]]:
        for index in range(self.world_setting.shards if w.forgets else 0):
            if (after := self._forgotten(w, index)) is not None:
                yield f"shard {index} forgets", after

    def _network_events(self, w: World) -> Iterator[tuple[str, World]]:
        for message in w.network:
            if w.epochs[message.shard] == message.epoch:
                shards, _ = self._applied(w, message.shard, message.call)
                if shards != w.shards:
                    name = f"{self.name(message.call)} reaches shard {message.shard}, no reply"
                    yield name, w.after(shards, w.tries, w.scan, w.network, w.told)

    def _try_events(self, w: World, number: int) -> Iterator[tuple[str, World]]:
        attempt = self._tries[number]
        shard, call = self.next_step(number)[0].calls[0]
        at = w.tries.index(number)
        others = (*w.tries[:at], *w.tries[at + 1 :])
        name = self.name(call)
        if w.epochs[shard] == attempt.epochs[shard]:
            shards, reply = self._applied(w, shard, call)
            answered = attempt._replace(answers=(*attempt.answers, reply))
            yield f"{name} reaches shard {shard}, reply", self._go(w, answered, others, shards)
        else:
            stale = attempt._replace(answers=(*attempt.answers, (NoReply.STALE,)))
            yield f"{name} is refused by shard {shard}: epoch", self._go(w, stale, others, w.shards)
        lost = attempt._replace(answers=(*attempt.answers, (NoReply.LOST,)))
        yield f"{name}: its coordinator gives up waiting", self._go(w, lost, others, w.shards)
        yield f"{name}: its coordinator dies", w.after(w.shards, others, w.scan, w.network, w.told)

    def _scan_events(self, w: World) -> Iterator[tuple[str, World]]:
        if w.scan is None:
            for home, number in enumerate(w.shards):
                for prepared, entries in zip((True, False), self.entries(self.frozen(number)), strict=True):
                    for entry in entries:
                        scan = Scan(prepared, home, entry, w.placement, w.epochs, ())
                        what = f"{self.payload_of(entry)} {'prepared' if prepared else 'unsettled'}"
                        yield f"the resolver finds {what}", self._scan(w, scan, w.shards)
            return
        shard, call = self.next_scan(w.scan)[0]
        name = self.name(call)
        if w.epochs[shard] == w.scan.epochs[shard]:
            shards, reply = self._applied(w, shard, call)
            answered = w.scan._replace(answers=(*w.scan.answers, reply))
            yield f"resolver: {name} at shard {shard}", self._scan(w, answered, shards)
        lost = w.scan._replace(answers=(*w.scan.answers, (NoReply.LOST,)))
        yield f"resolver: {name} gets no answer", self._scan(w, lost, w.shards)

    def _go(self, w: World, attempt: Try, others: tuple[int, ...], shards: tuple[int, ...]) -> World:
        """The try sends the calls of its step, which leave together, or ends."""
        number = _number(attempt, self._tries, self._try_numbers)
        step, sent = self.next_step(number)
        tries, told = others, w.told
        if step.calls:
            tries = tuple(sorted((*others, number)))
        elif step.outcome not in (Outcome.OUTCOME_UNKNOWN, Outcome.STALE_EPOCH):
            told |= {(attempt.payload, without_side(step.outcome))}
        return w.after(shards, tries, w.scan, w.network | sent, told)

    def _scan(self, w: World, scan: Scan, shards: tuple[int, ...]) -> World:
        calls = self.next_scan(scan)
        if not calls:
            return w.after(shards, w.tries, None, w.network, w.told)
        sent = {Message(shard, scan.epochs[shard], call) for shard, call in calls}
        return w.after(shards, w.tries, scan, w.network | sent, w.told)

    def _applied(self, w: World, shard: int, call: int) -> tuple[tuple[int, ...], Columns]:
        after, reply = self.deliver(w.shards[shard], call)
        return (*w.shards[:shard], after, *w.shards[shard + 1 :]), reply

    def _forgotten(self, w: World, index: int) -> World | None:
        """Two rotations of one shard, if it may; by then every message and coordinator is gone."""
        shards = [self.thaw(frozen) for frozen in w.shards]
        peers = [Peer.LAGGING if shard.unsettled or shard.commits else Peer.SETTLED for shard in shards]
        if not self.world_setting.may_rotate(1.0, 1.0, peers):
            return None
        for _ in range(2):
            shards[index].rotate()
        frozen = (*w.shards[:index], self.freeze(shards[index]), *w.shards[index + 1 :])
        return w._replace(shards=frozen, tries=(), scan=None, network=frozenset(), forgets=w.forgets - 1)

    def _happened(self, w: World, event: str) -> World:
        shards = [self.thaw(frozen) for frozen in w.shards]
        self.happens(event, shards, w.placement)
        return w._replace(
            shards=tuple(self.freeze(shard) for shard in shards),
            environment=tuple(e for e in w.environment if e != event),
        )

    def _moved(self, w: World, slot: int, target: int) -> World:
        """A slot with all that belongs to it."""
        source = w.placement[slot]
        shards = [self.thaw(frozen) for frozen in w.shards]
        self.move(slot, shards[source], shards[target])
        epochs = tuple(e + (i in (source, target)) for i, e in enumerate(w.epochs))
        return w._replace(
            shards=tuple(self.freeze(shard) for shard in shards),
            placement=(*w.placement[:slot], target, *w.placement[slot + 1 :]),
            epochs=epochs,
            # Nobody can act on a message of a past epoch any more.
            network=frozenset(m for m in w.network if epochs[m.shard] == m.epoch),
            moves=w.moves - 1,
        )

    # ------------------------------------------------------------------ the search

    def _heals(self, shards: tuple[int, ...], placement: tuple[int, ...]) -> str | None:
        """Whether a resolver alone, with nothing lost, makes the state clean; what is left if not."""
        epochs = (1,) * len(shards)
        w = self.initial()._replace(shards=shards, placement=placement, epochs=epochs)
        for _ in range(MAX_LOOKS):
            event = next(self._scan_events(w), None)
            thawed = [self.thaw(frozen) for frozen in w.shards]
            if event is None:
                return self.left_over(thawed)
            if any(shard.alarms for shard in thawed):
                return "R5 in recovery: a committed leg is neither prepared nor applied"
            w = event[1]
            while w.scan is not None:
                w = next(self._scan_events(w))[1]
        return "the resolver does not come to an end"

    def _verdict(
        self,
        shards: tuple[int, ...],
        told: frozenset[tuple[str, int]],
        forgets: int,
        environment: tuple[str, ...],
    ) -> str | None:
        return self.broken(
            self.initial()._replace(shards=shards, told=told, forgets=forgets, environment=environment)
        )

    def _is_dead(self, number: int, call: int) -> bool:
        return self.does_nothing_ever(self._frozen[number], self._calls[call])

    def _without_dead(self, w: World) -> World:
        """The same state without messages that will never do anything.

        Worlds that differ by these are one.
        """
        dead = {m for m in w.network if self.is_dead(w.shards[m.shard], m.call)}
        return w._replace(network=w.network - dead) if dead else w

    def run(self) -> int:
        """Visits every state. Returns their number; raises ViolationError for the first bad one."""
        start = self.initial()
        cause: dict[World, tuple[World, str] | None] = {start: None}
        queue = deque([start])
        while queue:
            world = queue.popleft()
            what = self.verdict(world.shards, world.told, world.forgets, world.environment) or self.heals(
                world.shards, world.placement
            )
            if what:
                raise ViolationError(what, self._trace(cause, world))
            for name, event in self.events(world):
                unchanged = event.shards == world.shards and event.network == world.network
                after = event if unchanged else self._without_dead(event)
                if after not in cause:
                    cause[after] = (world, name)
                    queue.append(after)
        return len(cause)

    @staticmethod
    def _trace(cause: dict[World, tuple[World, str] | None], world: World) -> list[str]:
        names: list[str] = []
        link = cause[world]
        while link is not None:
            world, name = link
            names.append(name)
            link = cause[world]
        return names[::-1]
