"""A coordinator of the fuzzer: one try of some transactions, message by message."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coordinator.attempt_steps import Batch
from coordinator.attempts import Attempt, Commit, Recovery, each
from shard_node.client import NoReply
from shard_node.contract import (
    Abandon,
    Answer,
    Bundle,
    Command,
    Decide,
    Finish,
    Outcome,
    Post,
    Prepare,
    Settle,
    Transaction,
)
from tests.coordinator.fuzz_payloads import SHOWN
from tests.coordinator.fuzz_shards import FuzzShard, require
from tests.coordinator.payloads import attempts_at, posted_bundle, shards_of
from tests.model import Faults

if TYPE_CHECKING:
    from tests.coordinator.fuzzer import World

# A share of coordinators dies between two steps.
_DEATHS = 0.05

# What is sent to shards, and then what they answered: by shard index.
_Steps = Generator[Mapping[int, Command], Mapping[int, Answer | NoReply], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run is made of. With ``faults`` shards are the model alone, which has them."""

    seed: int
    steps: int
    time_ordered: bool = False
    big: bool = False
    commit: type[Commit] = Commit
    recovery: type[Recovery] = Recovery
    faults: Faults | None = None


class Coordinator:
    """One coordinator's try of some rows, by the topology as it is now.

    ``local`` says that one shard has all accounts, and is sent all at once.
    """

    def __init__(self, world: World, name: str, rows: Sequence[Transaction], *, local: bool) -> None:
        self.ended = False
        # Shards that have forgotten since it began.
        self.aged: set[int] = set()
        self._world = world
        self._name = name
        self._rows = rows
        self._shards: Sequence[FuzzShard] = world.shards
        self._owner = world.topology.owner
        self._answers: dict[int, Answer | NoReply] = {}
        self._calls: list[tuple[int, Command]] = []
        self._steps = self._post() if local else self._commit()
        self._take_step(None)

    async def go_on(self) -> None:
        """Sends the next message, or takes the next step with the answers, or dies."""
        world = self._world
        if self._calls:
            index, call = self._calls.pop(world.rng.randrange(len(self._calls)))
            self._answers[index] = await world.deliver(self._name, self._shards[index], call)
        elif world.rng.random() < _DEATHS:
            self.die()
        else:
            self._take_step(self._answers)

    def die(self) -> None:
        """It is heard of no more."""
        self._world.note(f"{self._name} dies")
        self.ended = True

    def _take_step(self, answers: Mapping[int, Answer | NoReply] | None) -> None:
        try:
            calls = next(self._steps) if answers is None else self._steps.send(answers)
        except StopIteration:
            self.ended = True
        else:
            self._calls, self._answers = list(calls.items()), {}

    # ------------------------------------------------------------------ what coordinators and routers do

    def _post(self) -> _Steps:
        (at,) = shards_of(self._rows[0], self._owner)
        wanted = self._world.rng.random() < 0.5
        (answer,) = (yield {at: Post(posted_bundle(self._rows), wanted)}).values()
        if not isinstance(answer, NoReply):
            self._answer(self._rows, answer.codes[0])

    def _commit(self) -> _Steps:
        """As the driver does."""
        world = self._world
        parts = attempts_at(self._rows, self._owner, world.new_attempt_id)
        batch = Batch(
            [attempt for attempt, _ in parts],
            [shard.shard_id for shard in self._shards],
            world.new_attempt_id,
            world.may_abandon,
            with_balances=world.rng.random() < 0.5,
            machines=(world.setting.commit, world.setting.recovery),
        )
        steps = batch.steps()
        calls = next(steps)
        while True:
            riding = {index: ride for index, call in calls.items() if (ride := self._with_ride(index, call))}
            answers = yield {**calls, **riding}
            for index, decide in riding.items():
                if isinstance(answers[index], NoReply):
                    world.settle_later({index: decide.settled})
            try:
                calls = steps.send(answers)
            except StopIteration:
                break
        require(not batch.missing, "no leg is missing (R5)", batch.missing)
        for attempt, numbers in parts:
            self._answer([self._rows[number] for number in numbers], attempt.outcomes)
        if world.rng.random() < 0.5:
            yield {index: Settle(pairs) for index, pairs in batch.settled.items()}
        else:
            world.settle_later(batch.settled)

    def _with_ride(self, index: int, call: Command) -> Decide | None:
        settled = self._world.settlements.pop(index, []) if isinstance(call, Decide) else []
        return replace(call, settled=settled) if settled and isinstance(call, Decide) else None

    def _answer(self, rows: Sequence[Transaction], codes: bytes) -> None:
        outcomes = [Outcome(code) for code in each(codes, len(rows))]
        for outcome in outcomes:
            is_step = outcome >= Outcome.PREPARED and outcome not in {Outcome.STALE_EPOCH, Outcome.BUSY}
            require(not is_step, "steps of the protocol are answered to nobody", outcome.name)
        self._world.answer(rows, outcomes)


def described(call: Command) -> str:
    """A command's name and the ends of the ids that it is about."""
    match call:
        case Post():
            return f"Post {_ids(call.bundle)}"
        case Prepare():
            return "Prepare " + ", ".join(f"{_end(one)} of {_ids(one.bundle)}" for one in call.attempts)
        case Decide():
            asked = ", ".join(f"{_end(one)} {one.verdicts.hex()}" for one in call.attempts)
            return f"Decide {asked}" + (f" and settle {_pairs(call.settled)}" if call.settled else "")
        case Finish():
            ends = zip(call.attempt_ids, call.codes, strict=True)
            return "Finish " + ", ".join(f"{name[SHOWN].hex()} {codes.hex()}" for name, codes in ends)
        case Settle():
            return f"Settle {_pairs(call.settled)}"
        case Abandon():
            return "Abandon " + " ".join(name[SHOWN].hex() for name in call.attempt_ids)


def _end(attempt: Attempt | object) -> str:
    name: bytes = attempt.attempt_id  # type: ignore[union-attr]
    return name[SHOWN].hex()


def _pairs(settled: Sequence[tuple[bytes, int]]) -> str:
    return " ".join(f"{name[SHOWN].hex()}.{number}" for name, number in settled)


def _ids(bundle: bytes) -> str:
    return " ".join(row.transaction_id[SHOWN].hex() for row in Bundle.unpack(bundle).transactions)
