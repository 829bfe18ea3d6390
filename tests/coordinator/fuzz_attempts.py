"""A coordinator of the fuzzer: one try of some transactions, message by message."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coordinator.journal_protocol import JournalCommit
from coordinator.protocol import Commit, Part, Recovery
from shard_node.client.asking import NoReply
from shard_node.cluster.slots import slot
from shard_node.contract.bundles import each
from shard_node.contract.calls import ATTEMPT_BYTES, Post, SettleCommits
from shard_node.contract.calls import Attempt as BundleAttempt
from shard_node.contract.journal_calls import Journals, PostJournals, Settle
from shard_node.contract.outcomes import Outcome, without_side
from shard_node.contract.transfers import Transfers
from tests.coordinator.fuzz_books import BrokenError
from tests.coordinator.fuzz_messages import Look
from tests.coordinator.fuzz_payloads import Transaction

if TYPE_CHECKING:
    from tests.coordinator.fuzzer import World

# A share of coordinators dies between two steps.
_DEATHS = 0.05

# What is sent to shards, and then what they answered: by shard index.
_Steps = Generator[Mapping[int, Any], Mapping[int, Any], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run is made of. ``commit`` and ``journal_commit`` are the coordinators' machines."""

    seed: int
    steps: int
    time_ordered: bool = False
    big: bool = False
    commit: type[Commit] = Commit
    journal_commit: type[JournalCommit] = JournalCommit


class Attempt:
    """One coordinator's try of some rows, all transfers or all journals, by the cluster's map as it is now.

    ``local`` says that one shard has all accounts, and is sent all at once.
    """

    def __init__(self, world: World, name: str, rows: Sequence[Transaction], *, local: bool) -> None:
        self.ended = False
        self._world = world
        self._name = name
        self._rows = rows
        self._cluster = world.cluster
        self._answers: dict[int, Any] = {}
        self._calls: list[tuple[int, Any]] = []
        self._steps = (
            self._post() if local else self._transfers() if rows[0].is_transfer else self._journals()
        )
        self._take_step(None)

    async def go_on(self) -> None:
        """Sends the next message, or takes the next step with the answers, or dies."""
        world = self._world
        if self._calls:
            index, call = self._calls.pop(world.rng.randrange(len(self._calls)))
            self._answers[index] = await world.deliver(self._name, self._cluster, index, call)
        elif world.rng.random() < _DEATHS:
            world.note(f"{self._name} dies")
            self.ended = True
        else:
            self._take_step(self._answers)

    def _take_step(self, answers: Mapping[int, Any] | None) -> None:
        try:
            calls = next(self._steps) if answers is None else self._steps.send(answers)
        except StopIteration:
            self.ended = True
        else:
            self._calls, self._answers = list(calls.items()), {}

    # ------------------------------------------------------------------ what coordinators and routers do

    def _post(self) -> _Steps:
        rows = self._rows
        payloads: Any = [(row.transaction_id, row.payload) for row in rows]
        at = self._cluster.owner[slot(rows[0].accounts[-1])]
        if not rows[0].is_transfer:
            (answer,) = (yield {at: PostJournals(Journals.of(payloads))}).values()
            if not isinstance(answer, NoReply):
                self._tell(rows, answer.codes)
            return
        with_balances = self._world.rng.random() < 0.5
        bundle = Transfers.of(payloads).bundle()
        (answer,) = (yield {at: Post(bundle, with_balances)}).values()
        if not isinstance(answer, NoReply):
            self._tell(rows, each(answer.codes[0], len(rows)))

    def _journals(self) -> _Steps:
        payloads: Any = [(row.transaction_id, row.payload) for row in self._rows]
        machine = self._world.setting.journal_commit(Journals.of(payloads), self._cluster.owner)
        answers = yield machine.prepare()
        answers = yield machine.decide(answers)
        answers = yield machine.finish(answers)
        machine.conclude(answers)
        self._check_missing(machine.missing)
        self._tell(self._rows, machine.outcomes)
        yield {index: Settle(keys) for index, keys in machine.settled.items()}

    def _transfers(self) -> _Steps:
        world, shard_ids = self._world, self._cluster.shard_ids
        parts = self._parts()
        machine = world.setting.commit(
            [part for part, _ in parts], shard_ids, with_balances=world.rng.random() < 0.5
        )
        answers = yield machine.prepare()
        calls = machine.decide(answers, world.settlements)
        for index in calls:
            world.settlements.pop(index, None)
        answers = yield calls
        answers = yield machine.finish(answers)
        machine.conclude(answers)
        self._check_missing(machine.missing)
        for index, names in machine.elsewhere().items():
            yield from self._finish_others(machine, index, names)
        for part, rows in parts:
            self._tell(rows, each(part.outcomes, len(rows)))
        if world.rng.random() < 0.5:
            yield {index: SettleCommits(names) for index, names in machine.settled.items()}
        else:
            # They ride on the next decide.
            world.settle_later(machine.settled)

    def _parts(self) -> list[tuple[Part, list[Transaction]]]:
        """The rows by pairs of shards, as a router splits them."""
        owner, groups = self._cluster.owner, dict[tuple[int, int], list[Transaction]]()
        for row in self._rows:
            payer, payee = (owner[slot(name)] for name in row.accounts)
            groups.setdefault((payer, payee), []).append(row)
        parts = []
        for (payer, payee), rows in groups.items():
            payloads: Any = [(row.transaction_id, row.payload) for row in rows]
            attempt_id = self._world.rng.randbytes(ATTEMPT_BYTES)
            attempt = BundleAttempt(attempt_id, Transfers.of(payloads).bundle())
            parts.append((Part(payer, payee, attempt), rows))
        return parts

    def _finish_others(self, machine: Commit, index: int, names: Sequence[bytes]) -> _Steps:
        """As Driver does with commits of others that its rows are in."""
        (found,) = (yield {index: Look(names)}).values()
        if isinstance(found, NoReply):
            return
        recovery = Recovery(index, (), found, self._cluster.owner, self._cluster.shard_ids)
        answers = yield recovery.resolve()
        answers = yield recovery.finish(answers)
        yield recovery.settle(answers)
        self._check_missing(recovery.missing)
        settled = set(names) - {commit.name for commit in found}
        machine.finished_elsewhere(index, settled | set(recovery.finished))

    @staticmethod
    def _check_missing(missing: Sequence[bytes]) -> None:
        if missing:
            raise BrokenError(f"no leg is missing (R5): {[name.hex() for name in missing]}")

    def _tell(self, rows: Sequence[Transaction], codes: Sequence[int]) -> None:
        for code in codes:
            outcome = Outcome(without_side(code))
            if Outcome.PREPARED <= outcome != Outcome.STALE_EPOCH:
                raise BrokenError(f"steps of the protocol are told to nobody: {outcome.name}")
        self._world.tell(rows, codes)
