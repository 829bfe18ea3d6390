"""The exhaustive search of :mod:`tests.coordinator.world` over tries of one transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coordinator.protocol import Commit, NoReply, Recovery
from shard_node.calls import Call, Decide, Finish, Post, Prepare, Reply, Resolve, Settle
from shard_node.outcomes import Outcome
from shard_node.records import Account, AccountState, PendingTransfer
from shard_node.transfers import Kind, Terms, Transfers, decision_key
from tests.coordinator.world import Columns, Scan, Step, Try, ViolationError, World, WorldSetting
from tests.coordinator.world import Explorer as WorldExplorer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.model import ShardModel

SLOTS = {"payer": 0, "payee": 1, "other": 1, "stranger": 2}
AMOUNT = 1

# Payloads that may come under the one transaction id, as (payer, payee). RETRY is the right one;
# MISTAKE has another payee; STRANGER another payer, whose shard cannot know of the first.
RETRY, MISTAKE, STRANGER = "retry", "mistake", "stranger"
PAYLOADS = {RETRY: ("payer", "payee"), MISTAKE: ("payer", "other"), STRANGER: ("stranger", "payee")}


@dataclass(frozen=True, slots=True)
class Setting(WorldSetting):
    """One instance to search.

    ``start`` is the shard of each slot: the payer's, the payee's, the stranger's. Of the environment,
    "fund" gives the payer money, "close" closes the payee's account to prepares.
    """

    tries: tuple[str, ...] = (RETRY, RETRY)
    start: tuple[int, ...] = (0, 1, 0)
    payer_has: int = 1
    commit: type[Commit] = Commit
    recovery: type[Recovery] = Recovery


def _transfer(payload: str) -> Transfers:
    payer, payee = PAYLOADS[payload]
    terms = Terms(AMOUNT, "EUR", SLOTS[payer], SLOTS[payee], Kind.TRANSFER, payer, payee, b"")
    return Transfers.of([(bytes(16), terms)])


class Explorer(WorldExplorer):
    """Searches one setting of transfers."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.transfers = {payload: _transfer(payload) for payload in sorted(set(setting.tries))}
        self._payloads = {t.keys[0]: payload for payload, t in self.transfers.items()}
        super().__init__(setting, {SLOTS[name] for payload in self.transfers for name in PAYLOADS[payload]})

    def payload_of(self, key: bytes) -> str:
        """The payload of a transfer's key."""
        return self._payloads[key]

    def answer(self, columns: Columns) -> Reply:
        """A reply of :mod:`shard_node.calls`."""
        return Reply(*columns)

    def call_name(self, call: Call) -> tuple[object, ...]:
        """Its function, transfer and verdict."""
        match call:
            case Post() | Prepare():
                return call.FUNCTION, call.transfers.keys[0]
            case Decide():
                return call.FUNCTION, call.transfers.keys[0], call.verdicts[0]
            case Finish():
                return call.FUNCTION, call.keys[0], call.verdicts[0]
            case Settle() | Resolve():
                return call.FUNCTION, call.keys[0]

    def step_of(self, attempt: Try) -> Step:
        """One call when the accounts share a shard, else what Commit says."""
        transfers, answers = self.transfers[attempt.payload], attempt.answers
        owner = attempt.placement
        shard = owner[transfers.payer_slots[0]]
        if shard == owner[transfers.payee_slots[0]]:
            if not answers:
                return Step(((shard, self.intern(Post(transfers))),))
            lost = isinstance(answers[0][0], NoReply)
            return Step((), Outcome.OUTCOME_UNKNOWN if lost else self.answer(answers[0]).codes[0])
        commit = self.setting.commit(transfers, owner)
        calls = self.walk(commit.prepare(), (commit.decide, commit.finish, commit.conclude), answers)
        if calls:
            return Step(calls)
        settles = [(index, self.intern(Settle(keys))) for index, keys in commit.settled.items()]
        return Step((), commit.outcomes[0], tuple(settles))

    def recovery(self, scan: Scan) -> Recovery:
        """Of one transfer."""
        transfers = self.transfers[self.payload_of(scan.key)]
        entry = PendingTransfer(transfers.keys[0], 0, transfers.bodies[0])
        found = ([entry], []) if scan.prepared else ([], [entry])
        return self.setting.recovery(*found, scan.placement)

    def open_accounts(self, shards: Sequence[ShardModel]) -> None:
        """Those that the payloads name."""
        s = self.setting
        for name in sorted({name for payload in self.transfers for name in PAYLOADS[payload]}):
            balance = {"payer": s.payer_has, "stranger": AMOUNT}.get(name, 0)
            account = Account(balance, 0, 0, 0, AccountState.OPEN, "EUR")
            shards[s.start[SLOTS[name]]].accounts[name] = account

    def happens(self, event: str, shards: Sequence[ShardModel], placement: Sequence[int]) -> None:
        """Money comes, or the payee freezes."""
        shard = shards[placement[0 if event == "fund" else 1]]
        if event == "fund":
            shard.accounts["payer"] = Account(AMOUNT, 0, 1, 0, AccountState.OPEN, "EUR")
        else:
            payee = shard.accounts["payee"]
            shard.accounts["payee"] = Account(payee.available_minor, 0, 0, 0, AccountState.FROZEN, "EUR")

    def move(self, slot: int, old: ShardModel, new: ShardModel) -> None:
        """A slot with its accounts, outcomes, applied legs, prepared and unsettled entries."""
        for name in [name for name in old.accounts if SLOTS[name] == slot]:
            new.accounts[name] = old.accounts.pop(name)
        for key, payload in self._payloads.items():
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

    # ------------------------------------------------------------------ what must hold

    def broken(self, w: World) -> str | None:
        """Half applied, doubly applied, contradicting an answer; or None."""
        shards = [self.thaw(frozen) for frozen in w.shards]
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
                payer, payee = PAYLOADS[self.payload_of(key)]
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


__all__ = ["MISTAKE", "RETRY", "STRANGER", "Explorer", "Setting", "ViolationError"]
