"""The exhaustive search of :mod:`tests.coordinator.world` over tries of one transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

from coordinator.protocol import Commit, Part, Recovery
from shard_node.client.asking import NoReply
from shard_node.contract.bundles import Bundle
from shard_node.contract.calls import (
    ATTEMPT_BYTES,
    Attempt,
    Call,
    Decide,
    Finish,
    Post,
    Prepare,
    Reply,
    ResolveAttempts,
    SettleCommits,
)
from shard_node.contract.outcomes import Outcome
from shard_node.contract.records import Account, AccountState, PendingAttempt, PendingCommit
from shard_node.contract.transfers import Kind, Terms, Transfers
from tests.coordinator.world import Columns, Frozen, Scan, Step, Try, ViolationError, World, WorldSetting
from tests.coordinator.world import Explorer as WorldExplorer
from tests.model import Faults

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
    # Whether coordinators end commits of others that they wait for, as recovery does. Many more states.
    finishes_others: bool = True
    commit: type[Commit] = Commit
    recovery: type[Recovery] = Recovery


def _transfer(payload: str) -> Transfers:
    payer, payee = PAYLOADS[payload]
    terms = Terms(AMOUNT, "EUR", SLOTS[payer], SLOTS[payee], Kind.TRANSFER, payer, payee, b"")
    return Transfers.of([(bytes(16), terms)])


class _Found(NamedTuple):
    """What a resolver finds: an attempt, or a commit by its name.

    ``peer`` is the payee's shard of a commit.
    """

    attempt_id: bytes
    name: bytes = b""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What Shard.commits reads, as a call that changes nothing."""

    FUNCTION: ClassVar[str] = "look"
    names: tuple[bytes, ...]


class Explorer(WorldExplorer):
    """Searches one setting of transfers."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.transfers = {payload: _transfer(payload) for payload in sorted(set(setting.tries))}
        self.bundles = {payload: transfers.bundle() for payload, transfers in self.transfers.items()}
        self._payloads = {t.keys[0]: payload for payload, t in self.transfers.items()}
        self._shard_ids = [str(index) for index in range(setting.shards)]
        super().__init__(setting, {SLOTS[name] for payload in self.transfers for name in PAYLOADS[payload]})

    def number_of(self, w: World) -> int:
        """How many tries have begun: each is an attempt of its own."""
        return len(self.setting.tries) - len(w.waiting)

    def entries(self, shard: Frozen) -> tuple[list[_Found], list[_Found]]:
        """Attempts, and commits."""
        attempts = [_Found(attempt_id) for attempt_id, _ in shard.attempts]
        commits = [_Found(commit.attempt_id, name, commit.peer) for name, commit in shard.commits]
        return attempts, commits

    def payload_of(self, entry: _Found) -> str:
        """The payload that an attempt is at."""
        return _payload_of(entry.attempt_id)

    def answer(self, columns: Columns) -> Reply:
        """A reply of :mod:`shard_node.contract.calls`."""
        return Reply(*columns)

    def call_name(self, call: Call | Look) -> tuple[object, ...]:
        """Its function, attempt and verdict."""
        match call:
            case Look():
                return call.FUNCTION, *call.names
            case Post():
                return call.FUNCTION, call.bundle
            case Prepare():
                return call.FUNCTION, *(attempt.attempt_id for attempt in call.attempts)
            case Decide():
                ids = [attempt.attempt_id for attempt in call.attempts]
                return call.FUNCTION, *ids, *call.peers, *call.verdicts
            case Finish():
                return call.FUNCTION, *call.attempt_ids, *call.verdicts
            case SettleCommits():
                return call.FUNCTION, *call.commits
            case ResolveAttempts():
                return call.FUNCTION, *call.attempt_ids, *call.decisions, *call.terms

    def step_of(self, attempt: Try) -> Step:
        """One call when the accounts share a shard, else what Commit says."""
        transfers, bundle, answers = (
            self.transfers[attempt.payload],
            self.bundles[attempt.payload],
            attempt.answers,
        )
        owner = attempt.placement
        payer_shard, payee_shard = owner[transfers.payer_slots[0]], owner[transfers.payee_slots[0]]
        if payer_shard == payee_shard:
            if not answers:
                return Step(((payer_shard, self.intern(Post(bundle))),))
            lost = isinstance(answers[0][0], NoReply)
            return Step((), Outcome.OUTCOME_UNKNOWN if lost else self.answer(answers[0]).codes[0][0])
        part = Part(payer_shard, payee_shard, Attempt(_attempt_id(attempt), bundle))
        commit = self.setting.commit([part], self._shard_ids)
        calls = self.walk(commit.prepare(), (commit.decide, commit.finish, commit.conclude), answers)
        if calls:
            return Step(calls)
        settles = [(index, self.intern(SettleCommits(names))) for index, names in commit.settled.items()]
        for index, names in commit.elsewhere().items() if self.setting.finishes_others else ():
            # Only then are there more answers than the four steps have calls.
            step = self._finish_others(commit, index, names, attempt)
            if step.calls:
                return step
        return Step((), part.outcomes[0], tuple(settles))

    def _finish_others(self, commit: Commit, index: int, names: Sequence[bytes], attempt: Try) -> Step:
        """What the driver does with commits of others: looks at them, ends them, tells the machine."""
        calls = self._calls_made(commit, attempt)
        look, *answers = attempt.answers[calls:] or (None,)
        if look is None:
            return Step(((index, self.intern(Look(tuple(names)))),))
        if isinstance(look[0], NoReply):
            return Step(())
        found = [_Found(*row) for row in look[0]]
        bundle = self.bundles[attempt.payload]
        commits = [self._pending(one, bundle) for one in found]
        recovery = self.setting.recovery(index, [], commits, attempt.placement, self._shard_ids)
        left = self.walk(recovery.resolve(), (recovery.finish, recovery.settle, None), answers)
        if left:
            return Step(left)
        ended = set(names) - {one.name for one in found} | set(recovery.finished)
        commit.finished_elsewhere(index, ended)
        return Step(())

    def _calls_made(self, commit: Commit, attempt: Try) -> int:
        """How many of a try's answers are those of its own steps: all have one call."""
        prepared, decided = attempt.answers[0], attempt.answers[1]
        assert not isinstance(prepared[0], NoReply)
        assert not isinstance(decided[0], NoReply)
        return 3 if prepared[0][0][0] == Outcome.PREPARED else 2

    @staticmethod
    def _pending(found: _Found, bundle: Bundle) -> PendingCommit:
        committed = bytes((Outcome.COMMITTED,))
        columns = bundle.decisions, bundle.terms, bundle.bodies
        return PendingCommit(found.name, found.attempt_id, found.peer, committed, *columns)

    def _deliver(self, number: int, call: int) -> tuple[int, Columns]:
        wanted = self._calls[call]
        if not isinstance(wanted, Look):
            return super()._deliver(number, call)
        commits = dict(self.frozen(number).commits)
        rows = [(commits[n].attempt_id, n, commits[n].peer) for n in wanted.names if n in commits]
        return number, (tuple(rows),)

    def recovery(self, scan: Scan) -> Recovery:
        """Of one attempt, or of one commit."""
        found = cast("_Found", scan.entry)
        bundle = self.bundles[self.payload_of(found)]
        attempts, commits = [], []
        if scan.prepared:
            columns = bundle.decisions, bundle.terms, bundle.bodies
            attempts = [PendingAttempt(found.attempt_id, 0, bytes((Outcome.PREPARED,)), *columns)]
        else:
            commits = [self._pending(found, bundle)]
        return self.setting.recovery(scan.home, attempts, commits, scan.placement, self._shard_ids)

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

    def does_nothing_ever(self, shard: Frozen, call: Call | Look) -> bool:
        """An attempt that has ended stays so, and an outcome is remembered: unless rules are broken."""
        if self.setting.faults != Faults():
            return False
        match call:
            case Look():
                return True
            case Prepare():
                return call.attempts[0].attempt_id in shard.ended
            case Finish():
                return call.attempt_ids[0] in shard.ended
            case Post():
                return self._is_decided(shard, call.bundle.decisions)
            case Decide():
                # It may carry settlements, but never does here.
                return self._is_decided(shard, call.attempts[0].bundle.decisions)
            case ResolveAttempts():
                return self._is_decided(shard, call.decisions[0])
            case SettleCommits():
                # Sent only when the commit was there; an attempt commits once.
                return all(name != call.commits[0] for name, _ in shard.commits)

    @staticmethod
    def _is_decided(shard: Frozen, decision: bytes) -> bool:
        return any(known == decision for known, _ in shard.decided)

    def may_move(self, slot: int, old: Frozen) -> bool:
        """Not while something of the slot is prepared there, or unsettled."""
        prepared = {PAYLOADS[_payload_of(name)][1] for name, _ in old.attempts}
        unsettled = {PAYLOADS[_payload_of(commit.attempt_id)][0] for _, commit in old.commits}
        return all(SLOTS[name] != slot for name in prepared | unsettled)

    def move(self, slot: int, old: ShardModel, new: ShardModel) -> None:
        """A slot with its accounts and outcomes. Attempts stay with the shard that they were made at."""
        for name in [name for name in old.accounts if SLOTS[name] == slot]:
            new.accounts[name] = old.accounts.pop(name)
        for decision in [decision for decision in old.decided if decision[16:] == slot.to_bytes(2, "little")]:
            new.decided[decision] = old.decided.pop(decision)

    # ------------------------------------------------------------------ what must hold

    def broken(self, w: World) -> str | None:
        """Half applied, doubly applied, contradicting an answer; or None."""
        shards = [self.thaw(frozen) for frozen in w.shards]
        if any(shard.alarms for shard in shards):
            return "R5: a committed leg is neither prepared nor applied"
        balances = {name: a.available_minor for shard in shards for name, a in shard.accounts.items()}
        in_flight = self._in_flight(shards)
        outcomes = {d.key: d.outcome for shard in shards for d in shard.decided.values()}
        expected = self._funded(w, balances)
        if w.forgets < self.setting.forgets:
            # An id that was forgotten may move once more; but money is neither made nor lost.
            total = sum(balances.values()) + AMOUNT * len(in_flight)
            return None if total == sum(expected.values()) else f"money was made or lost: {balances}"
        coming = {self.transfers[_payload_of(name)].keys[0] for name in in_flight}
        for key, code in outcomes.items():
            if code == Outcome.COMMITTED:
                payer, payee = PAYLOADS[self._payloads[key]]
                expected[payer] -= AMOUNT
                expected[payee] += 0 if key in coming else AMOUNT
        if balances != expected:
            return f"money was made or lost: {balances}, but by the outcomes {expected}"
        for payload, code in w.told:
            key = self.transfers[payload].keys[0]
            committed = outcomes.get(key) == Outcome.COMMITTED
            if code == Outcome.COMMITTED and (not committed or key in coming):
                return f"{payload} was told COMMITTED, but the payee does not have it: {balances}"
            if code != Outcome.COMMITTED and committed:
                return f"{payload} was told {Outcome(code).name}, but it is committed"
        return None

    @staticmethod
    def _in_flight(shards: Sequence[ShardModel]) -> set[bytes]:
        """Attempts that are committed and whose legs still wait."""
        prepared = {name for shard in shards for name in shard.attempts}
        return prepared & {commit.attempt_id for shard in shards for commit in shard.commits.values()}

    def _funded(self, w: World, names: Iterable[str]) -> dict[str, int]:
        """What the accounts had before any transfer."""
        expected = dict.fromkeys(names, 0) | {"payer": self.setting.payer_has}
        if "fund" in self.setting.environment and "fund" not in w.environment:
            expected["payer"] += AMOUNT
        if "stranger" in expected:
            expected["stranger"] += AMOUNT
        return expected


def _attempt_id(attempt: Try) -> bytes:
    return f"{attempt.number}:{attempt.payload}".encode().ljust(ATTEMPT_BYTES)


def _payload_of(attempt_id: bytes) -> str:
    return attempt_id.decode().partition(":")[2].rstrip()


__all__ = ["MISTAKE", "RETRY", "STRANGER", "Explorer", "Setting", "ViolationError"]
