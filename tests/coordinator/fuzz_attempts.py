"""A coordinator of the fuzzer: one try of some transactions, message by message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coordinator.journal_protocol import JournalCommit
from coordinator.protocol import Commit, NoReply
from shard_node.calls import Post, Settle
from shard_node.journal_calls import Journals, PostJournals
from shard_node.slots import slot
from shard_node.transfers import Transfers
from tests.coordinator.fuzz_books import BrokenError
from tests.coordinator.fuzz_payloads import Transaction

if TYPE_CHECKING:
    from tests.coordinator.fuzzer import World

# A share of coordinators dies between two steps.
_DEATHS = 0.05


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
    """One coordinator's try of some rows, all transfers or all journals.

    ``local`` says that one shard has all accounts, and is sent all at once.
    """

    def __init__(self, world: World, name: str, rows: Sequence[Transaction], *, local: bool) -> None:
        self.ended = False
        self._world = world
        self._name = name
        self._rows = rows
        self._answers: dict[int, Any] = {}
        payloads: Any = [(row.transaction_id, row.payload) for row in rows]
        setting, owner = world.setting, world.cluster.owner
        self._machine: Commit | JournalCommit | None = None
        if local:
            at = owner[slot(rows[0].accounts[-1])]
            post = (
                Post(Transfers.of(payloads)) if rows[0].is_transfer else PostJournals(Journals.of(payloads))
            )
            self._calls: list[tuple[int, Any]] = [(at, post)]
            self._steps: list[Callable[[Any], Any]] = []
        else:
            machine: Commit | JournalCommit = (
                setting.commit(Transfers.of(payloads), owner)
                if rows[0].is_transfer
                else setting.journal_commit(Journals.of(payloads), owner)
            )
            self._machine = machine
            self._calls = list(machine.prepare().items())
            self._steps = [machine.decide, machine.finish, machine.conclude]

    async def go_on(self) -> None:
        """Sends the next message, or takes the next step with the answers, or dies."""
        world = self._world
        if self._calls:
            index, call = self._calls.pop(world.rng.randrange(len(self._calls)))
            self._answers[index] = await world.deliver(self._name, index, call)
        elif self._machine is None:
            self.ended = True
            for answer in self._answers.values():
                if not isinstance(answer, NoReply):
                    world.tell(self._rows, answer.codes)
        elif world.rng.random() < _DEATHS:
            world.note(f"{self._name} dies")
            self.ended = True
        else:
            calls: Mapping[int, Any] | None = self._steps.pop(0)(self._answers)
            self._calls, self._answers = list((calls or {}).items()), {}
            if not self._steps:
                await self._conclude(self._machine)

    async def _conclude(self, machine: Commit | JournalCommit) -> None:
        self.ended = True
        if machine.missing:
            raise BrokenError(f"no leg is missing (R5): {[key.hex() for key in machine.missing]}")
        self._world.tell(self._rows, machine.outcomes)
        for index, keys in machine.settled.items():
            await self._world.deliver(self._name, index, Settle(keys))
