"""An exhaustive search over every order of events around one transaction id.

The world is small: two accounts, each in a slot of its own; two or three shards, which are the plain
model that ``library.lua`` is tested against; a few tries of one transaction id, each by a coordinator
(or a router's single call, when the accounts share a shard); a resolver; a network. What decides is
the product's own code: ``Commit`` and ``Recovery``.

The network keeps every message ever sent, and may deliver any of them at any time, any number of
times, or never. That is loss, duplication, reordering and delay past a connection's death in one.
A reply reaches the sender at once or never: a late reply is the same as a late next message. A
coordinator may give up or die at any point. A resize moves a slot, with all that belongs to it,
between any two events, and raises the epochs of both shards.

Searched breadth first, so the trace of a violation is a shortest one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from coordinator.protocol import Answer, Commit, NoReply, Recovery
from shard_node.calls import Call, Decide, Finish, Post, Prepare, Reply, Resolve, Settle
from shard_node.outcomes import Outcome, without_side
from shard_node.records import Account, AccountState, PendingTransfer
from shard_node.rotation import Peer, may_rotate
from shard_node.transfers import Kind, Terms, Transfers, decision_key
from tests.model import Faults, ShardModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

SLOTS = {"payer": 0, "payee": 1, "other": 1, "stranger": 2}
AMOUNT = 1

# Payloads that may come under the one transaction id, as (payer, payee). RETRY is the right one;
# MISTAKE has another payee; STRANGER another payer, whose shard cannot know of the first.
RETRY, MISTAKE, STRANGER = "retry", "mistake", "stranger"
PAYLOADS = {RETRY: ("payer", "payee"), MISTAKE: ("payer", "other"), STRANGER: ("stranger", "payee")}


class ViolationError(AssertionError):
    """A state that must not be; ``trace`` are the events that lead to it."""

    def __init__(self, what: str, trace: list[str]) -> None:
        super().__init__(what + "\n  " + "\n  ".join(trace))
        self.what = what
        self.trace = trace


@dataclass(frozen=True, slots=True)
class Setting:
    """One instance to search.

    ``tries`` are the payloads of the tries of the one transaction id. ``moves`` bounds the slots
    moved. ``start`` is the shard of each slot: the payer's, the payee's, the stranger's.
    """

    tries: tuple[str, ...] = (RETRY, RETRY)
    shards: int = 2
    start: tuple[int, int, int] = (0, 1, 0)
    moves: int = 1
    payer_has: int = 1
    # How often a shard may forget what it remembered; nothing else lives as long as that takes.
    forgets: int = 0
    # Events from outside, each at any moment, once: "fund" gives the payer money, "close" closes
    # the payee's account to prepares.
    environment: tuple[str, ...] = ()
    commit: type[Commit] = Commit
    recovery: type[Recovery] = Recovery
    may_rotate: Callable[[float, float, Sequence[Peer]], bool] = may_rotate
    faults: Faults = field(default_factory=Faults)


class Message(NamedTuple):
    """A call on its way: to which shard, at which epoch; ``call`` indexes the explorer's calls."""

    shard: int
    epoch: int
    call: int


class Try(NamedTuple):
    """A coordinator at work on the id. ``answers`` are those it has got, a call a step."""

    payload: str
    placement: tuple[int, ...]
    epochs: tuple[int, ...]
    answers: tuple[tuple[object, ...], ...]


class Scan(NamedTuple):
    """The resolver at work on one entry it found."""

    prepared: bool
    payload: str
    placement: tuple[int, ...]
    epochs: tuple[int, ...]
    answers: tuple[tuple[object, ...], ...]


class World(NamedTuple):
    """One state. ``told`` are the definite outcomes that clients were given."""

    shards: tuple[tuple[object, ...], ...]
    placement: tuple[int, ...]
    epochs: tuple[int, ...]
    waiting: tuple[str, ...]
    tries: tuple[Try, ...]
    scan: Scan | None
    network: frozenset[Message]
    told: frozenset[tuple[str, int]]
    moves: int
    forgets: int
    environment: tuple[str, ...]


def _transfer(payload: str) -> Transfers:
    payer, payee = PAYLOADS[payload]
    terms = Terms(AMOUNT, "EUR", SLOTS[payer], SLOTS[payee], Kind.TRANSFER, payer, payee, b"")
    return Transfers.of([(bytes(16), terms)])


class Explorer:
    """Searches one setting; :meth:`run` raises ViolationError or returns how many states there are."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.transfers = {payload: _transfer(payload) for payload in sorted(set(setting.tries))}
        self.payload_of = {t.keys[0]: payload for payload, t in self.transfers.items()}
        self.slots = sorted({SLOTS[name] for payload in self.transfers for name in PAYLOADS[payload]})
        self._calls: list[Call] = []
        self._index: dict[tuple[object, ...], int] = {}
        # Bound caches: one explorer's answers must not leak into another's.
        self.deliver = lru_cache(maxsize=None)(self._deliver)
        self.next_step = lru_cache(maxsize=None)(self._next_step)
        self.next_scan = lru_cache(maxsize=None)(self._next_scan)
        self.heals = lru_cache(maxsize=None)(self._heals)

    # ------------------------------------------------------------------ shards

    def _thaw(self, frozen: tuple[object, ...]) -> ShardModel:
        accounts, decided, applied, prepared, unsettled, alarms = frozen
        return ShardModel(
            accounts=dict(accounts),  # type: ignore[call-overload]
            decided=dict(decided),  # type: ignore[call-overload]
            applied=set(applied),  # type: ignore[call-overload]
            prepared=dict(prepared),  # type: ignore[call-overload]
            unsettled=dict(unsettled),  # type: ignore[call-overload]
            # Read only near the limit of 2^53, where nobody here comes.
            incoming_minor={},
            alarms=alarms,  # type: ignore[arg-type]
            faults=self.setting.faults,
        )

    @staticmethod
    def _freeze(shard: ShardModel) -> tuple[object, ...]:
        return (
            frozenset(shard.accounts.items()),
            frozenset(shard.decided.items()),
            frozenset(shard.applied),
            frozenset(shard.prepared.items()),
            frozenset(shard.unsettled.items()),
            shard.alarms,
        )

    def _deliver(
        self, frozen: tuple[object, ...], call: int
    ) -> tuple[tuple[object, ...], tuple[object, ...]]:
        shard = self._thaw(frozen)
        reply = shard.call(self._calls[call])
        return self._freeze(shard), (
            tuple(reply.codes),
            tuple(reply.payer_balances),
            tuple(reply.payee_balances),
        )

    def _intern(self, call: Call) -> int:
        match call:
            case Post() | Prepare():
                name: tuple[object, ...] = (call.FUNCTION, call.transfers.keys[0])
            case Decide():
                name = (call.FUNCTION, call.transfers.keys[0], call.verdicts[0])
            case Finish():
                name = (call.FUNCTION, call.keys[0], call.verdicts[0])
            case Settle() | Resolve():
                name = (call.FUNCTION, call.keys[0])
        if name not in self._index:
            self._index[name] = len(self._calls)
            self._calls.append(call)
        return self._index[name]

    def _name(self, call: int) -> str:
        value = self._calls[call]
        verdicts = getattr(value, "verdicts", [])
        return value.FUNCTION + "".join(f"({Outcome(without_side(v)).name if v else 'go'})" for v in verdicts)

    # ------------------------------------------------------------------ what the product decides

    def _next_step(self, attempt: Try) -> tuple[tuple[int, int] | None, int, int | None]:
        """Next call of a try as (shard, call), or its outcome; and the Settle it owes in the end."""
        transfers, answers = self.transfers[attempt.payload], attempt.answers
        owner = attempt.placement
        shard = owner[transfers.payer_slots[0]]
        if shard == owner[transfers.payee_slots[0]]:
            if not answers:
                return (shard, self._intern(Post(transfers))), 0, None
            answer = _answer(answers[0])
            return None, Outcome.OUTCOME_UNKNOWN if isinstance(answer, NoReply) else answer.codes[0], None
        commit = self.setting.commit(transfers, owner)
        feeds = iter(answers)
        calls: dict[int, Call] = dict(commit.prepare())
        for feed in (commit.decide, commit.finish, commit.conclude):
            got: dict[int, Answer] = {}
            for shard, call in calls.items():
                try:
                    got[shard] = _answer(next(feeds))
                except StopIteration:
                    return (shard, self._intern(call)), 0, None
            calls = dict(feed(got) or {})
        settles = [self._intern(Settle(keys)) for keys in commit.settled.values()]
        return None, commit.outcomes[0], settles[0] if settles else None

    def _next_scan(self, scan: Scan) -> tuple[int, int] | None:
        """The resolver's next call as (shard, call), or None when it is through with the entry."""
        transfers = self.transfers[scan.payload]
        entry = PendingTransfer(transfers.keys[0], 0, transfers.bodies[0])
        recovery = self.setting.recovery(
            [entry] if scan.prepared else [], [] if scan.prepared else [entry], scan.placement
        )
        feeds = iter(scan.answers)
        calls: dict[int, Call] = dict(recovery.resolve())
        for feed in (recovery.finish, recovery.settle, None):
            got: dict[int, Answer] = {}
            for shard, call in calls.items():
                try:
                    got[shard] = _answer(next(feeds))
                except StopIteration:
                    return shard, self._intern(call)
            if feed is None:
                return None
            calls = dict(feed(got))
        return None

    # ------------------------------------------------------------------ events

    def initial(self) -> World:
        """The world before anything happened."""
        s = self.setting
        shards = [ShardModel(faults=s.faults) for _ in range(s.shards)]
        open_ = AccountState.OPEN
        for name in sorted({name for payload in self.transfers for name in PAYLOADS[payload]}):
            balance = {"payer": s.payer_has, "stranger": AMOUNT}.get(name, 0)
            shards[s.start[SLOTS[name]]].accounts[name] = Account(balance, 0, 0, 0, open_, "EUR")
        return World(
            tuple(self._freeze(shard) for shard in shards),
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
            attempt = Try(payload, w.placement, w.epochs, ())
            yield f"a try begins: {payload}", self._go(w._replace(waiting=tuple(waiting)), attempt)
        for attempt in set(w.tries):
            yield from self._try_events(w, attempt)
        yield from self._scan_events(w)
        yield from self._network_events(w)
        if w.moves:
            for slot in self.slots:
                for target in range(self.setting.shards):
                    if target != w.placement[slot]:
                        yield f"slot {slot} moves to shard {target}", self._moved(w, slot, target)
        yield from self._forget_events(w)
        for event in w.environment:
            yield event, self._environment(w, event)

    def _forget_events(self, w: World) -> Iterator[tuple[str, World]]:
        for index in range(self.setting.shards if w.forgets else 0):
            if (after := self._forgotten(w, index)) is not None:
                yield f"shard {index} forgets", after

    def _network_events(self, w: World) -> Iterator[tuple[str, World]]:
        for message in w.network:
            if w.epochs[message.shard] == message.epoch:
                shards, _ = self._applied(w, message)
                if shards != w.shards:
                    name = f"{self._name(message.call)} reaches shard {message.shard}, no reply"
                    yield name, w._replace(shards=shards)

    def _try_events(self, w: World, attempt: Try) -> Iterator[tuple[str, World]]:
        step, _, _ = self.next_step(attempt)
        assert step is not None
        message = Message(step[0], attempt.epochs[step[0]], step[1])
        others = list(w.tries)
        others.remove(attempt)
        base = w._replace(tries=tuple(others))
        name = self._name(message.call)
        if w.epochs[message.shard] == message.epoch:
            shards, reply = self._applied(w, message)
            answered = attempt._replace(answers=(*attempt.answers, reply))
            yield (
                f"{name} reaches shard {message.shard}, reply",
                self._go(base._replace(shards=shards), answered),
            )
        else:
            stale = attempt._replace(answers=(*attempt.answers, (NoReply.STALE,)))
            yield f"{name} is refused by shard {message.shard}: epoch", self._go(base, stale)
        lost = attempt._replace(answers=(*attempt.answers, (NoReply.LOST,)))
        yield f"{name}: its coordinator gives up waiting", self._go(base, lost)
        yield f"{name}: its coordinator dies", base

    def _scan_events(self, w: World) -> Iterator[tuple[str, World]]:
        if w.scan is None:
            for frozen in w.shards:
                for prepared, entries in ((True, frozen[3]), (False, frozen[4])):
                    for key, _ in entries:  # type: ignore[attr-defined]
                        payload = self.payload_of[key]
                        scan = Scan(prepared, payload, w.placement, w.epochs, ())
                        what = "prepared" if prepared else "unsettled"
                        yield f"the resolver finds {payload} {what}", self._scan(w, scan)
            return
        step = self.next_scan(w.scan)
        assert step is not None
        message = Message(step[0], w.scan.epochs[step[0]], step[1])
        name = self._name(message.call)
        if w.epochs[message.shard] == message.epoch:
            shards, reply = self._applied(w, message)
            answered = w.scan._replace(answers=(*w.scan.answers, reply))
            yield (
                f"resolver: {name} at shard {message.shard}",
                self._scan(w._replace(shards=shards), answered),
            )
        lost = w.scan._replace(answers=(*w.scan.answers, (NoReply.LOST,)))
        yield f"resolver: {name} gets no answer", self._scan(w, lost)

    def _go(self, w: World, attempt: Try) -> World:
        """The try sends its next call, or ends."""
        step, outcome, settle = self.next_step(attempt)
        if step is not None:
            message = Message(step[0], attempt.epochs[step[0]], step[1])
            return w._replace(
                tries=tuple(sorted((*w.tries, attempt), key=repr)), network=w.network | {message}
            )
        if settle is not None:
            shard = attempt.placement[SLOTS[PAYLOADS[attempt.payload][0]]]
            w = w._replace(network=w.network | {Message(shard, attempt.epochs[shard], settle)})
        if outcome not in (Outcome.OUTCOME_UNKNOWN, Outcome.STALE_EPOCH):
            w = w._replace(told=w.told | {(attempt.payload, without_side(outcome))})
        return w

    def _scan(self, w: World, scan: Scan) -> World:
        step = self.next_scan(scan)
        if step is None:
            return w._replace(scan=None)
        message = Message(step[0], scan.epochs[step[0]], step[1])
        return w._replace(scan=scan, network=w.network | {message})

    def _applied(
        self, w: World, message: Message
    ) -> tuple[tuple[tuple[object, ...], ...], tuple[object, ...]]:
        shard, reply = self.deliver(w.shards[message.shard], message.call)
        return (*w.shards[: message.shard], shard, *w.shards[message.shard + 1 :]), reply

    def _forgotten(self, w: World, index: int) -> World | None:
        """Two rotations of one shard, if it may; by then every message and coordinator is gone."""
        shards = [self._thaw(frozen) for frozen in w.shards]
        peers = [Peer.LAGGING if shard.unsettled else Peer.SETTLED for shard in shards]
        if not self.setting.may_rotate(1.0, 1.0, peers):
            return None
        for _ in range(2):
            shards[index].rotate()
        frozen = (*w.shards[:index], self._freeze(shards[index]), *w.shards[index + 1 :])
        return w._replace(shards=frozen, tries=(), scan=None, network=frozenset(), forgets=w.forgets - 1)

    def _environment(self, w: World, event: str) -> World:
        index = w.placement[0 if event == "fund" else 1]
        shard = self._thaw(w.shards[index])
        if event == "fund":
            shard.accounts["payer"] = Account(AMOUNT, 0, 1, 0, AccountState.OPEN, "EUR")
        else:
            payee = shard.accounts["payee"]
            shard.accounts["payee"] = Account(payee.available_minor, 0, 0, 0, AccountState.FROZEN, "EUR")
        shards = (*w.shards[:index], self._freeze(shard), *w.shards[index + 1 :])
        return w._replace(shards=shards, environment=tuple(e for e in w.environment if e != event))

    def _moved(self, w: World, slot: int, target: int) -> World:
        """A slot with its accounts, outcomes, applied legs, prepared and unsettled entries."""
        source = w.placement[slot]
        shards = [self._thaw(frozen) for frozen in w.shards]
        old, new = shards[source], shards[target]
        for name in [name for name in old.accounts if SLOTS[name] == slot]:
            new.accounts[name] = old.accounts.pop(name)
        for key, payload in self.payload_of.items():
            body = self.transfers[payload].bodies[0]
            payer, payee = PAYLOADS[payload]
            if slot == SLOTS[payer]:
                decision = decision_key(key, body)
                if decision in old.decided:
                    new.decided[decision] = old.decided.pop(decision)
                if key in old.unsettled:
                    new.unsettled[key] = old.unsettled.pop(key)
            if slot == SLOTS[payee]:
                if key in old.prepared:
                    new.prepared[key] = old.prepared.pop(key)
                if key in old.applied:
                    old.applied.remove(key)
                    new.applied.add(key)
        epochs = tuple(e + (i in (source, target)) for i, e in enumerate(w.epochs))
        placement = (*w.placement[:slot], target, *w.placement[slot + 1 :])
        return w._replace(
            shards=tuple(self._freeze(shard) for shard in shards),
            placement=placement,
            epochs=epochs,
            # Nobody can act on a message of a past epoch any more.
            network=frozenset(m for m in w.network if epochs[m.shard] == m.epoch),
            moves=w.moves - 1,
        )

    # ------------------------------------------------------------------ what must hold

    def broken(self, w: World) -> str | None:
        """What is wrong with the state, or None."""
        shards = [self._thaw(frozen) for frozen in w.shards]
        if any(shard.alarms for shard in shards):
            return "R5: a committed leg is neither prepared nor applied"
        balances = {name: a.available_minor for shard in shards for name, a in shard.accounts.items()}
        prepared = {key for shard in shards for key in shard.prepared}
        unsettled = {key for shard in shards for key in shard.unsettled}
        outcomes = {key: code for shard in shards for code, key, _ in shard.decided.values()}
        expected = self._funded(w, balances)
        if w.forgets < self.setting.forgets:
            # An id that was forgotten may move once more; but money is neither made nor lost.
            total = sum(balances.values()) + AMOUNT * len(prepared & unsettled)
            return None if total == sum(expected.values()) else f"money was made or lost: {balances}"
        for key, code in outcomes.items():
            if code == Outcome.COMMITTED:
                payer, payee = PAYLOADS[self.payload_of[key]]
                expected[payer] -= AMOUNT
                expected[payee] += 0 if key in prepared & unsettled else AMOUNT
        if balances != expected:
            return f"money was made or lost: {balances}, but by the outcomes {expected}"
        for payload, code in w.told:
            key = self.transfers[payload].keys[0]
            committed = outcomes.get(key) == Outcome.COMMITTED
            if code == Outcome.COMMITTED and (not committed or key in prepared & unsettled):
                return f"{payload} was told COMMITTED, but the payee does not have it: {balances}"
            if code != Outcome.COMMITTED and committed:
                return f"{payload} was told {Outcome(code).name}, but it is committed"
        return None

    def _funded(self, w: World, names: Iterable[str]) -> dict[str, int]:
        """What the accounts had before any transfer."""
        expected = dict.fromkeys(names, 0) | {"payer": self.setting.payer_has}
        if "fund" in self.setting.environment and "fund" not in w.environment:
            expected["payer"] += AMOUNT
        if "stranger" in expected:
            expected["stranger"] += AMOUNT
        return expected

    def _heals(self, shards: tuple[tuple[object, ...], ...], placement: tuple[int, ...]) -> str | None:
        """Whether a resolver alone, with nothing lost, makes the state clean; what is left if not."""
        epochs = (1,) * len(shards)
        w = self.initial()._replace(shards=shards, placement=placement, epochs=epochs)
        for _ in range(8):
            event = next(self._scan_events(w), None)
            if event is None:
                return None
            w = event[1]
            while w.scan is not None:
                w = next(self._scan_events(w))[1]
            if any(self._thaw(frozen).alarms for frozen in w.shards):
                return "R5 in recovery: a committed leg is neither prepared nor applied"
        return "the resolver does not come to an end"

    def run(self) -> int:
        """Visits every state. Returns their number; raises ViolationError for the first bad one."""
        start = self.initial()
        cause: dict[World, tuple[World, str] | None] = {start: None}
        queue = deque([start])
        while queue:
            world = queue.popleft()
            what = self.broken(world) or self.heals(world.shards, world.placement)
            if what:
                raise ViolationError(what, self._trace(cause, world))
            for name, after in self.events(world):
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


def _answer(raw: tuple[object, ...]) -> Answer:
    if isinstance(raw[0], NoReply):
        return raw[0]
    return Reply(*raw)  # type: ignore[arg-type]
