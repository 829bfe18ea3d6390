"""The search over the world of :mod:`tests.coordinator.attempt_world`: events, and what must hold after each.

Breadth first, so the trace of a violation is a shortest one. Each property is looked at in every state: what
the payloads ask for, and that recovery alone, with nothing lost, makes the state clean, after which every
payload that is tried once more gets a definite answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from coordinator.attempts import InDoubt
from shard_node.client import NoReply
from shard_node.contract import Abandon, Answer, Command, Decide, Finish, Outcome, Prepare, Settle, start_ms
from shard_node.contract.layout import ATTEMPT_BYTES
from tests.coordinator.attempt_world import Ground, Message, Run, Setting, Step, Try, ViolationError, World
from tests.model import EngineModel, Faults, Frozen

H = TypeVar("H", bound=Hashable)
T = TypeVar("T")

# A resolver needs no more looks than this; if it does, it does not come to an end.
MAX_LOOKS = 16
# Answers that say nothing about what became of a transaction.
INDEFINITE = frozenset((Outcome.OUTCOME_UNKNOWN, Outcome.STALE_EPOCH, Outcome.TRANSACTION_ID_EXPIRED))
# Numbers of answers that are none; of a scan that is none.
_LOST, _STALE, _IDLE = -1, -2, -1
_SILENCE = {_LOST: NoReply.LOST, _STALE: NoReply.STALE}


def _number(value: H, values: list[H], numbers: dict[H, int]) -> int:
    """A value's place among those that came before; a new one is added to them."""
    number = numbers.setdefault(value, len(values))
    if number == len(values):
        values.append(value)
    return number


def _replaced(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    return (*values[:index], value, *values[index + 1 :])


class Search(ABC):
    """Searches one setting; :meth:`run` raises ViolationError or returns how many states there are."""

    def __init__(self, setting: Setting, slots: Iterable[int]) -> None:
        self.setting = setting
        self.slots = sorted(slots)
        self.shard_ids = [str(index) for index in range(setting.shards)]
        # Messages that can do nothing any more are left out, unless it is tested whether they can.
        self._prunes = setting.prunes and setting.faults == Faults() and not setting.crashes
        self._frozen: list[Frozen] = []
        self._frozen_numbers: dict[Frozen, int] = {}
        self._tries: list[Try] = []
        self._try_numbers: dict[Try, int] = {}
        self._calls: list[Command] = []
        self._call_numbers: dict[object, int] = {}
        self._answers: list[Answer] = []
        self._answer_numbers: dict[str, int] = {}
        # Bound caches: one explorer's answers must not leak into another's.
        self.deliver = lru_cache(maxsize=None)(self._deliver)
        self.next_step = lru_cache(maxsize=None)(self._next_step)
        self.name = lru_cache(maxsize=None)(self._name)
        self.heals = lru_cache(maxsize=None)(self._heals)
        self.is_dead = lru_cache(maxsize=None)(self._is_dead)
        self.entries = lru_cache(maxsize=None)(self._entries)
        self.drained = lru_cache(maxsize=None)(self._drained)
        self.verdict = lru_cache(maxsize=None)(self._verdict)

    # ------------------------------------------------------------------ what the payloads add

    @abstractmethod
    def open_accounts(self, shards: Sequence[EngineModel]) -> None:
        """Opens the accounts, with what they have, on the shards of ``start``."""

    @abstractmethod
    def payload_run(self, attempt: Try) -> Run:
        """All that a coordinator does with a payload."""

    @abstractmethod
    def happens(self, event: str, shards: Sequence[EngineModel], placement: Sequence[int]) -> None:
        """Carries out an event from outside."""

    @abstractmethod
    def broken(
        self, shards: Sequence[EngineModel], told: Iterable[tuple[str, int]], environment: Sequence[str]
    ) -> str | None:
        """What is wrong with the state, or None. ``environment`` are events that have not happened."""

    # ------------------------------------------------------------------ shards and what they are asked

    def thaw(self, number: int) -> EngineModel:
        """A shard to work on."""
        shard = EngineModel(faults=self.setting.faults)
        shard.thaw(self._frozen[number])
        return shard

    def freeze(self, shard: EngineModel) -> int:
        """The number of a shard's state: of all that matters of it."""
        return _number(shard.freeze(), self._frozen, self._frozen_numbers)

    def intern(self, call: Command) -> int:
        """The number of a call, the same for equal calls."""
        name = (call.COMMAND, *call.arguments())
        number = self._call_numbers.setdefault(name, len(self._calls))
        if number == len(self._calls):
            self._calls.append(call)
        return number

    def _deliver(self, number: int, call: int) -> tuple[int, int]:
        """The numbers of a shard's state after a call, and of its answer."""
        shard = self.thaw(number)
        answer = shard.call(self._calls[call])
        name = repr(answer)
        place = self._answer_numbers.setdefault(name, len(self._answers))
        if place == len(self._answers):
            self._answers.append(answer)
        return self.freeze(shard), place

    def _entries(self, number: int, home: int) -> list[tuple[bytes, int, int]]:
        """What the resolver may find on a shard: an attempt, its decider, and who keeps it (-1: a commit)."""
        shard, index = self.thaw(number), self.shard_ids.index
        kept = [(name, index(one.decider), home) for name, one in sorted(shard.attempts.items())]
        return kept + [(name, home, -1) for name in sorted(shard.commits)]

    def _drained(self, number: int, slot: int) -> bool:
        return self.thaw(number).is_drained(slot)

    def _is_dead(self, number: int, call: int) -> bool:
        """Whether a call can change a shard neither now nor later, for its attempts have ended there.

        When that is forgotten they are past the horizon: see :meth:`_unremembered`.
        """
        shard = self.thaw(number)
        match self._calls[call]:
            case Prepare() | Decide() as asked:
                names = [attempt.attempt_id for attempt in asked.attempts]
            case Finish() | Abandon() as asked:
                names = list(asked.attempt_ids)
            case Settle() as asked:
                return all(name not in shard.commits for name, _ in asked.settled)
            case _:
                return False
        return all(shard.ended(name) or shard.attempt_expired(name) for name in names)

    def _name(self, call: int) -> str:
        codes: list[int] = []
        match self._calls[call]:
            case Prepare() as asked:
                names = [attempt.attempt_id for attempt in asked.attempts]
            case Decide() as asked:
                names = [attempt.attempt_id for attempt in asked.attempts]
                codes = [code for attempt in asked.attempts for code in attempt.verdicts]
            case Finish() as asked:
                names, codes = list(asked.attempt_ids), [code for part in asked.codes for code in part]
            case Abandon() as asked:
                names = list(asked.attempt_ids)
            case Settle() as asked:
                names = [name for name, _ in asked.settled]
            case _:
                names = []
        told = "".join(f" ({Outcome(code).name if code else 'go'})" for code in codes)
        return self._calls[call].COMMAND.removeprefix("tallystick.") + f" {_starts(names)}" + told

    # ------------------------------------------------------------------ what the product decides

    def _next_step(self, number: int) -> tuple[Step, frozenset[Message]]:
        """The next step of the try or scan of that number, with the messages that it sends."""
        attempt = self._tries[number]
        run = self._recovery_run(*attempt.found) if attempt.found else self.payload_run(attempt)
        step = self._walk(run, attempt.answers)
        sent = step.calls or step.last
        return step, frozenset(Message(shard, attempt.epochs[shard], call) for shard, call in sent)

    def _walk(self, run: Run, answers: Sequence[int]) -> Step:
        """Sends a run all answers that there are."""
        left = iter(answers)
        try:
            calls = next(run)
            while True:
                got: dict[int, Answer | NoReply] = {}
                asked = list(calls.items())
                for place, (shard, _) in enumerate(asked):
                    number = next(left, None)
                    if number is None:
                        return Step(tuple((index, self.intern(call)) for index, call in asked[place:]))
                    got[shard] = _SILENCE[number] if number < 0 else self._answers[number]
                calls = run.send(got)
        except StopIteration as end:
            answered, last = end.value
            return Step((), answered, tuple((shard, self.intern(call)) for shard, call in last.items()))

    def _recovery_run(self, attempt_id: bytes, decider: int, kept_on: int) -> Run:
        doubt = InDoubt(attempt_id, decider, set() if kept_on < 0 else {kept_on})
        recovery = self.setting.recovery([doubt], self.shard_ids)
        answers = yield recovery.abandon()
        answers = yield recovery.finish(answers)
        yield recovery.settle(answers)
        return (), {}

    # ------------------------------------------------------------------ events

    def initial(self) -> World:
        """The world before anything happened."""
        s = self.setting
        shards = [EngineModel(faults=s.faults) for _ in range(s.shards)]
        self.open_accounts(shards)
        numbers = tuple(self.freeze(shard) for shard in shards)
        waiting = tuple(sorted(s.tries))
        ground = Ground(s.start, (1,) * s.shards, waiting, s.moves, s.rotations, s.crashes, s.environment)
        durable = numbers if s.crashes else ()
        return World(numbers, (), _IDLE, frozenset(), frozenset(), durable, ground)

    def events(self, w: World) -> Iterator[tuple[str, World]]:
        """Every event that can happen next, with the world after it."""
        ground = w.ground
        may_begin = self.setting.late_tries or ground.rotations == self.setting.rotations
        for payload in sorted(set(ground.waiting)) if may_begin else ():
            waiting = list(ground.waiting)
            waiting.remove(payload)
            number = len(self.setting.tries) - len(ground.waiting)
            attempt = Try(payload, number, None, ground.placement, ground.epochs)
            begun = w._replace(ground=ground._replace(waiting=tuple(waiting)))
            yield f"try {number + 1} begins: {payload}", self._go(begun, attempt)
        for number in set(w.tries):
            place = w.tries.index(number)
            alone = w._replace(tries=(*w.tries[:place], *w.tries[place + 1 :]))
            yield from self._step_events(alone, self._tries[number], number)
        yield from self._scan_events(w)
        yield from self._network_events(w)
        yield from self._move_events(w)
        yield from self._rotation_events(w)
        for index in range(self.setting.shards if ground.crashes else 0):
            if w.shards[index] != w.durable[index]:
                shards = _replaced(w.shards, index, w.durable[index])
                crashed = ground._replace(crashes=ground.crashes - 1)
                yield f"shard {index} crashes", w._replace(shards=shards, ground=crashed)
        for event in ground.environment:
            yield event, self._happened(w, event)

    def _step_events(self, alone: World, attempt: Try, number: int) -> Iterator[tuple[str, World]]:
        """What may come of a try's or the resolver's next call; ``alone`` is the world without it."""
        shard, call = self.next_step(number)[0].calls[0]
        name = ("resolver: " if attempt.found else "") + self.name(call)
        if alone.ground.epochs[shard] == attempt.epochs[shard]:
            after, answer = self.deliver(alone.shards[shard], call)
            yield (
                f"{name} reaches shard {shard}, reply",
                self._go(self._answered(alone, shard, after), attempt, answer),
            )
        else:
            yield f"{name} is refused by shard {shard}: epoch", self._go(alone, attempt, _STALE)
        yield f"{name}: no answer", self._go(alone, attempt, _LOST)
        yield f"{name}: who waits for it dies", alone

    def _answered(self, w: World, shard: int, after: int) -> World:
        """A call was answered: its writes are on disk, and all before them. R8: unless it wrote none."""
        if not w.durable:
            return w if after == w.shards[shard] else w._replace(shards=_replaced(w.shards, shard, after))
        shards, durable = _replaced(w.shards, shard, after), w.durable
        if after != w.shards[shard] or not self.setting.faults.repetition_unlogged:
            durable = _replaced(durable, shard, after)
        return w._replace(shards=shards, durable=durable)

    def _go(self, w: World, attempt: Try, *answer: int) -> World:
        """A try or the resolver, given one more answer, sends the calls of its next step, or ends."""
        if answer:
            payload, own, found, placement, epochs, answers, aged = attempt
            attempt = Try(payload, own, found, placement, epochs, answers + answer, aged)
        number = _number(attempt, self._tries, self._try_numbers)
        step, sent = self.next_step(number)
        shards, tries, scan, network, told, durable, ground = w
        if attempt.found:
            scan = number if step.calls else _IDLE
        elif step.calls:
            tries = tuple(sorted((*tries, number)))
        else:
            told |= {answer for answer in step.answered if answer[1] not in INDEFINITE}
        return World(shards, tries, scan, network | sent, told, durable, ground)

    def _scan_events(self, w: World) -> Iterator[tuple[str, World]]:
        if w.scan != _IDLE:
            yield from self._step_events(w._replace(scan=_IDLE), self._tries[w.scan], w.scan)
            return
        for home, number in enumerate(w.shards):
            for found in self.entries(number, home):
                scan = Try("", 0, found, w.ground.placement, w.ground.epochs)
                what = "a commit" if found[2] < 0 else "an attempt"
                yield f"the resolver finds {what} {_starts([found[0]])}", self._go(w, scan)

    def _network_events(self, w: World) -> Iterator[tuple[str, World]]:
        epochs = w.ground.epochs
        for shard, epoch, call in w.network:
            if epochs[shard] == epoch:
                after, _ = self.deliver(w.shards[shard], call)
                if after != w.shards[shard]:
                    name = f"{self.name(call)} reaches shard {shard}, no reply"
                    yield name, w._replace(shards=_replaced(w.shards, shard, after))

    def _move_events(self, w: World) -> Iterator[tuple[str, World]]:
        if not w.ground.moves:
            return
        for slot in self.slots:
            source = w.ground.placement[slot]
            if not self.drained(w.shards[source], slot):
                continue
            for target in range(self.setting.shards):
                wanted = self.setting.may_move
                if target != source and (not wanted or (slot, target) in wanted):
                    yield f"slot {slot} moves to shard {target}", self._moved(w, slot, target)

    def _moved(self, w: World, slot: int, target: int) -> World:
        ground = w.ground
        source = ground.placement[slot]
        shards = [self.thaw(number) for number in w.shards]
        shards[source].move_slot(slot, shards[target])
        epochs = tuple(epoch + (index in {source, target}) for index, epoch in enumerate(ground.epochs))
        placement = _replaced(ground.placement, slot, target)
        after = ground._replace(placement=placement, epochs=epochs, moves=ground.moves - 1)
        # Nobody can act on a message of a past epoch any more.
        network = frozenset(message for message in w.network if epochs[message.shard] == message.epoch)
        return self._written(w, shards)._replace(network=network, ground=after)

    def _written(self, w: World, shards: Sequence[EngineModel]) -> World:
        """The world with other states of its shards, all of them on disk."""
        numbers = tuple(self.freeze(shard) for shard in shards)
        return w._replace(shards=numbers, durable=numbers if w.durable else ())

    def _rotation_events(self, w: World) -> Iterator[tuple[str, World]]:
        if not w.ground.rotations:
            return
        shards = [self.thaw(number) for number in w.shards]
        for index in range(self.setting.shards):
            if self.setting.may_rotate(shards, index):
                yield f"shard {index} forgets a generation", self._rotated(w, index)

    def _rotated(self, w: World, index: int) -> World:
        """One shard forgets; who saw it forget before stops."""
        shards = [self.thaw(number) for number in w.shards]
        for shard in shards:
            shard.now_ms += self.setting.timed
        shards[index].rotate()
        tries = tuple(sorted(aged for number in w.tries if (aged := self._aged(number, index)) != _IDLE))
        scan = _IDLE if w.scan == _IDLE else self._aged(w.scan, index)
        ground = w.ground._replace(rotations=w.ground.rotations - 1)
        after = self._written(w, shards)
        if w.durable and not self.setting.marks:
            after = after._replace(durable=_replaced(w.durable, index, after.shards[index]))
        return after._replace(tries=tries, scan=scan, ground=ground)

    def _aged(self, number: int, index: int) -> int:
        attempt = self._tries[number]
        if attempt.aged & 1 << index:
            return _IDLE
        return _number(attempt._replace(aged=attempt.aged | 1 << index), self._tries, self._try_numbers)

    def _happened(self, w: World, event: str) -> World:
        shards = [self.thaw(number) for number in w.shards]
        self.happens(event, shards, w.ground.placement)
        left = tuple(e for e in w.ground.environment if e != event)
        return self._written(w, shards)._replace(ground=w.ground._replace(environment=left))

    # ------------------------------------------------------------------ the search

    def _heals(
        self, shards: tuple[int, ...], placement: tuple[int, ...], environment: tuple[str, ...]
    ) -> str | None:
        """What is wrong after recovery alone, with nothing lost, and after one more try of each payload."""
        epochs = (1,) * len(shards)
        ground = Ground(placement, epochs, (), 0, 0, 0, environment)
        w = World(shards, (), _IDLE, frozenset(), frozenset(), (), ground)
        for _ in range(MAX_LOOKS):
            found = [entry for home, number in enumerate(w.shards) for entry in self.entries(number, home)]
            if not found:
                break
            w = self._alone(w, Try("", 0, found[0], placement, epochs))
        else:
            return "the resolver does not come to an end"
        wrong = self.verdict(w.shards, frozenset(), environment)
        if wrong:
            return f"after recovery: {wrong}"
        return self._wrong_tries(w) if self.setting.tries_again else None

    def _wrong_tries(self, w: World) -> str | None:
        """What is wrong after one more try of each payload, with nothing in doubt before."""
        ground = w.ground
        for number, payload in enumerate(sorted(set(self.setting.tries)), start=len(self.setting.tries)):
            attempt = Try(payload, number, None, ground.placement, ground.epochs)
            w = self._alone(w._replace(told=frozenset()), attempt)
            wrong = self.verdict(w.shards, w.told, ground.environment)
            if wrong:
                return f"after recovery, and a try of {payload}: {wrong}"
            if any(code == Outcome.OUTCOME_UNKNOWN for _, code in w.told):
                return f"{payload} has no outcome after a try that nothing disturbed"
        if any(self.entries(number, home) for home, number in enumerate(w.shards)):
            return "something is in doubt after tries that nothing disturbed"
        return None

    def _alone(self, w: World, attempt: Try) -> World:
        """The world after all steps of a try or scan that nothing disturbs."""
        number = _number(attempt, self._tries, self._try_numbers)
        while (step := self.next_step(number)[0]).calls:
            shard, call = step.calls[0]
            after, answer = self.deliver(w.shards[shard], call)
            w = w._replace(shards=_replaced(w.shards, shard, after))
            attempt = attempt._replace(answers=(*attempt.answers, answer))
            number = _number(attempt, self._tries, self._try_numbers)
        for shard, call in step.last:
            w = w._replace(shards=_replaced(w.shards, shard, self.deliver(w.shards[shard], call)[0]))
        return w._replace(told=w.told | set(step.answered))

    def _verdict(
        self, shards: tuple[int, ...], told: frozenset[tuple[str, int]], environment: tuple[str, ...]
    ) -> str | None:
        thawed = [self.thaw(number) for number in shards]
        return _unremembered(thawed) or self.broken(thawed, told, environment)

    def _without_dead(self, w: World) -> World:
        """The same state without messages that can do nothing: worlds that differ by these are one."""
        shards, is_dead = w.shards, self.is_dead
        dead = [message for message in w.network if is_dead(shards[message[0]], message[2])]
        return w._replace(network=w.network.difference(dead)) if dead else w

    def run(self) -> int:
        """Visits every state. Returns their number; raises ViolationError for the first bad one."""
        start = self.initial()
        cause: dict[World, tuple[World, str] | None] = {start: None}
        queue = deque([start])
        while queue:
            world = queue.popleft()
            ground = world.ground
            what = self.verdict(world.shards, world.told, ground.environment) or self.heals(
                world.shards, ground.placement, ground.environment
            )
            if what:
                raise ViolationError(what, _trace(cause, world))
            for name, event in self.events(world):
                after = self._without_dead(event) if self._prunes else event
                if after not in cause:
                    cause[after] = (world, name)
                    queue.append(after)
        return len(cause)


def _unremembered(shards: Sequence[EngineModel]) -> str | None:
    """R10: an attempt that ended is past the horizon by the time that this is forgotten."""
    for shard in shards:
        for generation in (shard.current, shard.previous):
            if any(start_ms(name) > generation.newest_attempt_ms for name in generation.ended):
                return "an attempt will be forgotten before it is past the horizon"
    return None


def _starts(names: Iterable[bytes]) -> str:
    return ", ".join(str(name[ATTEMPT_BYTES - 1]) for name in names)


def _trace(cause: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    names: list[str] = []
    link = cause[world]
    while link is not None:
        world, name = link
        names.append(name)
        link = cause[world]
    return names[::-1]
