"""The Lua library and the plain model agree on journals too, among transfers, states, limits and time.

Two machines: one sends messages that no coordinator would send, the other only what coordinators do,
who may die at any step and whose messages may come again; of that one all money must add up.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from coordinator.journal_protocol import JournalCommit, JournalRecovery
from coordinator.protocol import Commit, Part, Recovery
from shard_node.agent.redis_process import RedisProcess
from shard_node.client.asking import NoReply
from shard_node.cluster.slots import SLOT_COUNT, slot
from shard_node.contract.calls import Call, SettleCommits
from shard_node.contract.journal_calls import (
    DecideJournals,
    FinishLegs,
    JournalCall,
    Journals,
    LegCheck,
    LegRef,
    PostJournals,
    PrepareLegs,
    ResolveJournals,
    Settle,
    leg_refs,
    related_key,
)
from shard_node.contract.journals import NO_ID, Effect, Journal, Leg, LegBody
from shard_node.contract.outcomes import Outcome
from shard_node.contract.records import PendingAttempt, PendingCommit, PendingTransfer
from shard_node.contract.transfers import Kind, terms_key, unpack_body
from shard_node.errors import ShardFullError
from shard_node.limits import MAX_BATCH, MAX_HOLD_SECONDS, MAX_MINOR
from tests.model import Faults, LedgerFullError
from tests.shard_node.kept import LedgerReader, kept_by, kept_in
from tests.shard_node.test_library_against_model import (
    ACCOUNTS,
    AMOUNTS,
    CURRENCIES,
    FIRST_DIFFERENCE,
    IDS,
    QUICK,
    Comparison,
    mostly,
)

# Longer than any test takes: these holds end when a test says so.
LIFE_MS = MAX_HOLD_SECONDS * 1000
# Enough of them that not every second one is used up.
MANY_IDS = [*IDS, *(bytes([100 + i] * 6 + [0x40] + [i] * 9) for i in range(30))]
PURCHASES = [bytes([50 + i] * 16) for i in range(2)]
NO_BACKLOG_LIMIT = 10**6
# Every slot is on the one shard; the machines do not mind.
OWNER = [0] * SLOT_COUNT
SHARD_IDS = ["shard-0"]
# More rules, and more to compare, than for transfers alone.
SETTINGS = settings(QUICK, max_examples=40)
# The same sequences each time: each fault is found by them, or never.
SAME_EVERY_TIME = settings(FIRST_DIFFERENCE, derandomize=True)
STATES = [Kind.FREEZE, Kind.UNFREEZE, Kind.CLOSE]


def leg(account: str, effect: Effect, amount_minor: int, currency: str) -> Leg:
    """A leg on the account's own slot."""
    return Leg(account, slot(account), effect, amount_minor, currency)


@st.composite
def postings(draw: st.DrawFn) -> Journal:
    """A JOURNAL of two to four legs that sum to zero, the first one a debit."""
    names = draw(st.lists(mostly(ACCOUNTS[:3], ACCOUNTS), min_size=2, max_size=4, unique=True))
    currency = draw(mostly(["EUR"], ["USD"]))
    effects = st.sampled_from([Effect.CREDIT, Effect.CREDIT, Effect.DEBIT])
    others = [leg(name, draw(effects), draw(AMOUNTS), currency) for name in names[1:]]
    owed = sum(o.amount_minor * (1 if o.effect is Effect.CREDIT else -1) for o in others)
    if not 0 < owed <= MAX_MINOR:
        others = [leg(name, Effect.CREDIT, 3, currency) for name in names[1:]]
        owed = 3 * len(others)
    return Journal(Kind.JOURNAL, (leg(names[0], Effect.DEBIT, owed, currency), *others), b"\0\0")


@st.composite
def splits(draw: st.DrawFn) -> Journal:
    """A JOURNAL with a debit to be prepared of who most likely has the money."""
    first, second = draw(st.sampled_from([("alice", "@world:EUR"), ("@world:EUR", "alice")]))
    amounts = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    legs = (
        leg(first, Effect.DEBIT, amounts[0], "EUR"),
        leg(second, Effect.DEBIT, amounts[1], "EUR"),
        leg(draw(mostly(["bob"], ["carol"])), Effect.CREDIT, sum(amounts), "EUR"),
    )
    return Journal(Kind.JOURNAL, legs, b"\0\0")


@st.composite
def refunds(draw: st.DrawFn) -> Journal:
    """A refund by a merchant to alice or whoever shares her slot."""
    merchant, customer = draw(st.sampled_from([("bob", "alice"), ("@world:EUR", "alice"), ("alice", "bob")]))
    amount = draw(AMOUNTS)
    legs = (leg(merchant, Effect.DEBIT, amount, "EUR"), leg(customer, Effect.REFUND, amount, "EUR"))
    return Journal(Kind.REFUND, legs, b"\0\0", draw(st.sampled_from(PURCHASES)), 25)


def hold(account: str, amount_minor: int, currency: str) -> Journal:
    """A hold of an account's money."""
    return Journal(Kind.HOLD, (leg(account, Effect.HOLD, amount_minor, currency),), b"\0\0", NO_ID, LIFE_MS)


def capture(hold_id: bytes, account: str, payee: str, amount_minor: int, currency: str) -> Journal:
    """A payment out of a hold."""
    legs = (
        leg(account, Effect.CAPTURE, amount_minor, currency),
        leg(payee, Effect.CREDIT, amount_minor, currency),
    )
    return Journal(Kind.CAPTURE, legs, b"\0\0", hold_id)


holds = st.builds(hold, mostly(["alice", "bob"], ACCOUNTS), AMOUNTS, mostly(["EUR"], ["USD"]))


@st.composite
def ends_of_holds(draw: st.DrawFn, known: list[tuple[bytes, str]]) -> Journal:
    """A capture or void of one of the given holds (id, account), or of one that may not be there."""
    anything = [(transaction_id, name) for transaction_id in IDS for name in ("alice", "{alice}:usd")]
    hold_id, name = draw(mostly(known or anything, anything))
    currency = draw(mostly(["EUR"], ["USD"]))
    if draw(st.integers(0, 3)) == 0:
        return Journal(Kind.VOID, (leg(name, Effect.VOID, 0, currency),), b"\0\0", hold_id)
    payee = draw(mostly([other for other in ("bob", "carol") if other != name], ["@world:USD"]))
    return capture(hold_id, name, payee, draw(AMOUNTS), currency)


class JournalComparison(Comparison):
    """Makes the same calls to a real shard and to the model; reads the ledger as it grows."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = LedgerReader()
        self.journals: list[Journals] = []
        self.past_ms = 0

    def open_accounts(self) -> None:
        """Two without limits, one with a maximum balance, one with both."""
        for account_id, floor, limits in (
            ("alice", -100, (0, 0)),
            ("{alice}:usd", 0, (0, 0)),
            ("bob", 0, (40, 0)),
            ("carol", -9, (30, 15)),
        ):
            self.open_account(account_id, "EUR", floor, *limits)

    # ------------------------------------------------------------------ calls to both

    def both(self, call: Call | JournalCall) -> Any:
        """One call to both; the replies must be equal, also that nothing new is accepted."""
        real: Any
        expected: Any
        try:
            real = self.runner.run(self.shard.call(call))
        except ShardFullError:
            real = NoReply.FULL
        try:
            expected = self.model.call(call)
        except LedgerFullError:
            assert real is NoReply.FULL, call
            return NoReply.FULL
        assert not isinstance(real, NoReply), call
        if isinstance(call, Call):
            self.compare(call, real, expected)
            return real
        for name in real.__slots__:
            got, wanted = list(getattr(real, name)), list(getattr(expected, name))
            assert got == wanted, (name, got, wanted, call)
        return real

    @rule(
        account_id=st.sampled_from(ACCOUNTS[:4]),
        currency=st.sampled_from(CURRENCIES),
        floor=st.sampled_from([0, -100, -MAX_MINOR + 1]),
        maximum=mostly([0], [30]),
        transfer=mostly([0], [15]),
    )
    def open_account(
        self, account_id: str, currency: str, floor: int, maximum: int = 0, transfer: int = 0
    ) -> None:
        """Opens an account, or finds it there, perhaps with other limits."""
        try:
            codes, accounts = self.runner.run(
                self.shard.open([account_id], [slot(account_id)], [currency], [floor], [maximum], [transfer])
            )
        except ShardFullError:
            with pytest.raises(LedgerFullError):
                self.model.open(account_id, currency, floor, maximum, transfer)
            return
        assert (codes[0], accounts[0]) == self.model.open(account_id, currency, floor, maximum, transfer)

    @rule(
        account_id=st.sampled_from(ACCOUNTS),
        change=mostly([Kind.UNFREEZE], STATES),
        validate_only=mostly([False], [True]),
    )
    def set_state(self, account_id: str, change: Kind, *, validate_only: bool) -> None:
        """Freezes, unfreezes or closes an account."""
        try:
            codes, accounts = self.runner.run(
                self.shard.set_state([account_id], [change], validate_only=validate_only)
            )
        except ShardFullError:
            with pytest.raises(LedgerFullError):
                self.model.set_state(account_id, change)
            return
        expected = self.model.set_state(account_id, change, validate_only=validate_only)
        assert (codes[0], accounts[0]) == expected

    @precondition(lambda self: any(self.model.in_use.values()))
    @rule(data=st.data())
    def close_what_is_awaited(self, data: st.DataObject) -> None:
        """Somebody wants to close an account that a prepared leg may name."""
        names = sorted(name for name, count in self.model.in_use.items() if count)
        self.set_state(data.draw(st.sampled_from(names)), Kind.CLOSE, validate_only=data.draw(st.booleans()))

    @rule(data=st.data())
    def post_journals(self, data: st.DataObject) -> None:
        """Journals within the shard."""
        self.both(PostJournals(self.draw_journals(data)))

    @rule(data=st.data())
    def prepare_legs(self, data: st.DataObject) -> None:
        """Step 1, for some of the legs."""
        legs = self.draw_legs(data)
        if legs:
            self.both(PrepareLegs(legs))

    @rule(data=st.data())
    def decide_journals(self, data: st.DataObject) -> None:
        """Step 2, whatever was prepared."""
        batch = self.draw_journals(data, across=True)
        refusals = mostly([(0, 0)], [(Outcome.ACCOUNT_FROZEN, 1), (Outcome.TRANSACTION_ID_EXPIRED, 2)])
        verdicts = data.draw(st.lists(refusals, min_size=len(batch), max_size=len(batch)))
        settled = data.draw(st.lists(st.sampled_from(self.journal_keys()), max_size=2))
        self.both(DecideJournals(batch, [v for v, _ in verdicts], [n for _, n in verdicts], settled))

    @rule(data=st.data(), verdict=st.sampled_from([Outcome.COMMITTED, Outcome.ABORTED, Outcome.SETTLED]))
    def finish_legs(self, data: st.DataObject, verdict: int) -> None:
        """Steps 3 and 4, also for legs that are not there."""
        legs = self.draw_legs(data)
        if legs:
            self.both(FinishLegs([ref.key for ref in legs], [verdict] * len(legs)))

    @rule(data=st.data())
    def settle_journals(self, data: st.DataObject) -> None:
        """Step 5 by itself."""
        if keys := self.journal_keys():
            self.both(Settle(data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3))))

    @rule(data=st.data())
    def resolve_journals(self, data: st.DataObject) -> None:
        """A resolver's question."""
        batch = self.draw_journals(data)
        rows = list(zip(batch.keys, batch.bodies, batch.journals, strict=True))
        slots = [journal.legs[0].slot for _, _, journal in rows]
        self.both(ResolveJournals(batch.keys, slots, [terms_key(key, body) for key, body, _ in rows]))

    @rule(
        transaction_id=st.sampled_from(MANY_IDS),
        name=st.sampled_from(["alice", "@world:EUR"]),
        amount=st.integers(1, 20),
    )
    def hold(self, transaction_id: bytes, name: str, amount: int) -> None:
        """A hold that most likely succeeds, so that holds are common."""
        self.post_one(transaction_id, hold(name, amount, "EUR"))

    @precondition(lambda self: self.model.holds)
    @rule(
        data=st.data(),
        transaction_id=st.sampled_from(MANY_IDS),
        rest=st.sampled_from([0, 0, 1, 2, -1]),
        late=mostly([False], [True]),
        thief=mostly([""], ["{alice}:usd"]),
    )
    def capture(
        self, data: st.DataObject, transaction_id: bytes, rest: int, *, late: bool, thief: str
    ) -> None:
        """A hold is captured, but for a rest.

        At times for more than it holds, or when its time is over, or from another account of its slot.
        """
        name = data.draw(st.sampled_from(sorted(self.model.holds)))
        if late:
            self.end_by_time(name)
        held = self.model.holds[name]
        amount = min(max(held.amount_minor - rest, 1), MAX_MINOR)
        payee = "@world:EUR" if held.account == "alice" else "alice"
        self.post_one(transaction_id, capture(name[:16], thief or held.account, payee, amount, "EUR"))

    @precondition(lambda self: self.in_doubt())
    @rule(data=st.data())
    def post_what_is_in_doubt(self, data: st.DataObject) -> None:
        """The accounts came together while a journal was under way."""
        self.both(PostJournals(data.draw(st.sampled_from(self.in_doubt()))))

    def in_doubt(self) -> list[Journals]:
        """Batches with a journal that is unsettled, or has a leg prepared."""
        keys = {*self.model.unsettled, *(name[:24] for name in self.model.prepared)}
        return [batch for batch in self.journals if keys.intersection(batch.keys)]

    def post_one(self, transaction_id: bytes, journal: Journal) -> None:
        """One journal in one call; it may come again."""
        batch = Journals.of([(transaction_id, journal)])
        self.journals.append(batch)
        self.both(PostJournals(batch))

    @rule(data=st.data(), steps=st.integers(1, 4))
    def commit_journals(self, data: st.DataObject, steps: int) -> None:
        """A coordinator that makes so many steps, the last of which is to settle."""
        machine = JournalCommit(self.draw_journals(data, across=True), OWNER)
        self.walk(machine, steps)

    @rule(data=st.data())
    def check_legs(self, data: st.DataObject) -> None:
        """What validate_only asks, leg by leg."""
        batch = self.draw_journals(data)
        checks = [
            LegCheck(
                leg.account,
                leg.effect,
                leg.amount_minor,
                leg.currency,
                related_key(journal, leg, key[:16]),
                journal.bound,
            )
            for key, journal in zip(batch.keys, batch.journals, strict=True)
            for leg in journal.legs
        ]
        assert self.runner.run(self.shard.check(checks)) == [self.model.check(check) for check in checks]

    # ------------------------------------------------------------------ time and the archive

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        """A hold's time is over."""
        self.end_by_time(data.draw(st.sampled_from(sorted(self.model.holds))))

    def end_by_time(self, name: bytes) -> None:
        """Has a hold say that its time is over, behind the library's back."""
        self.past_ms += 1
        self.runner.run(self.end_hold(name, self.past_ms))
        # The model's clock stands at zero.
        self.model.holds[name] = self.model.holds[name]._replace(expires_ms=self.past_ms - 1_000_000)

    async def end_hold(self, name: bytes, expires_ms: int) -> None:
        """Writes another time into a hold."""
        record = await self.shard.redis.hget("holds", name)
        assert isinstance(record, bytes)
        await self.shard.redis.hset("holds", name, struct.pack("<q", expires_ms) + record[8:])
        await self.shard.redis.zadd("holds:due", {name: expires_ms})

    @rule(limit=st.integers(1, 3))
    def expire(self, limit: int) -> None:
        """Holds whose time is over are ended, some at a time."""
        assert self.runner.run(self.shard.expire_holds(limit)) == self.model.expire(limit)

    @rule(data=st.data())
    def archive(self, data: st.DataObject) -> None:
        """Part of the ledger is stored elsewhere; the shard is told twice."""
        if not self.reader.calls:
            return
        state = self.runner.run(self.shard.ledger_state())
        count = data.draw(st.integers(1, len(self.reader.calls)))
        stored, self.reader.calls = self.reader.calls[:count], self.reader.calls[count:]
        entries, head = sum(n for _, n in stored), bytes([count % 256] * 32)
        for _ in range(2):
            self.runner.run(self.shard.archived(stored[-1][0], state.number + 1, head, entries))
        self.model.archived(entries)
        after = self.runner.run(self.shard.ledger_state())
        assert (after.number, after.head, after.stream_id) == (state.number + 1, head, stored[-1][0])
        assert after.length == len(self.reader.calls)

    @rule(limit=mostly([NO_BACKLOG_LIMIT], [0, 10, 30]))
    def limit_backlog(self, limit: int) -> None:
        """Fewer, or more, entries may wait to be archived."""
        self.model.backlog_limit = limit
        self.runner.run(self.shard.redis.hset("meta", "backlog_limit", limit))  # type: ignore[arg-type]

    # ------------------------------------------------------------------ draws

    def draw_journals(self, data: st.DataObject, *, across: bool = False) -> Journals:
        """A new batch, or often one that was sent before; ``across``: with participants."""
        known = [b for b in self.journals if not across or all(len(j.legs) > 1 for j in b.journals)]
        if known and data.draw(st.sampled_from([True, False])):
            sent: Journals = data.draw(st.sampled_from(known))
            return sent
        active = [(name[:16], hold.account) for name, hold in self.model.holds.items()]
        kinds = [postings(), splits(), refunds(), ends_of_holds(active)]
        if not across:
            kinds.append(holds)
        rows = st.tuples(st.sampled_from(MANY_IDS), st.one_of(kinds))
        if across:
            rows = rows.filter(lambda row: len(row[1].legs) > 1)
        batch = Journals.of(data.draw(st.lists(rows, min_size=1, max_size=3)))
        self.journals.append(batch)
        return batch

    def draw_legs(self, data: st.DataObject) -> list[LegRef]:
        """Some participants' legs of a batch; none when there are no journals of several legs."""
        batch = self.draw_journals(data, across=True)
        legs = [ref for row in range(len(batch)) for ref in leg_refs(batch, row)[1:]]
        chosen = data.draw(st.lists(st.sampled_from(range(len(legs))), min_size=1, max_size=4))
        return [legs[index] for index in chosen]

    def journal_keys(self) -> list[bytes]:
        """Of all journals so far."""
        return [key for batch in self.journals for key in batch.keys]

    def walk(self, machine: Commit | JournalCommit, steps: int) -> None:
        """So many of prepare, decide, finish and settle."""
        calls: Mapping[int, Any] = machine.prepare()
        for feed in (machine.decide, machine.finish, machine.conclude)[: steps - 1]:
            answers = {shard: self.both(call) for shard, call in calls.items()}
            calls = feed(answers) or {}
        if steps == 4:
            for names in machine.settled.values():
                self.both(SettleCommits(names) if isinstance(machine, Commit) else Settle(names))

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def nothing_else_differs(self) -> None:
        """All that is kept is the same; the ledger tells the same and adds up to it."""
        if not hasattr(self, "shard"):
            return
        kept = self.runner.run(kept_in(self.shard))
        assert kept == kept_by(self.model)
        self.runner.run(self.reader.read(self.shard))
        assert self.reader.entries == self.model.ledger
        self.reader.check(kept)
        snapshot = self.runner.run(self.shard.snapshot(ACCOUNTS))
        expected = [
            (self.model.accounts[name], self.model.snapshot(name)) if name in self.model.accounts else None
            for name in ACCOUNTS
        ]
        assert snapshot == expected
        self.adds_up(kept)

    def adds_up(self, kept: dict[str, Any]) -> None:
        """Nothing more: these messages make and lose money as they please."""


class OnlyJournals(JournalComparison):
    """Without the messages of transfers across shards, among which faults of journals are found late."""

    prepare = decide = finish = settle = resolve = commit = None  # type: ignore[assignment]


class SoundComparison(JournalComparison):
    """Only what coordinators and resolvers do, who may die at any step; messages may come again."""

    # Messages that nobody would send.
    prepare = decide = finish = settle = resolve = None  # type: ignore[assignment]
    prepare_legs = decide_journals = finish_legs = settle_journals = resolve_journals = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Call | JournalCall] = []

    def both(self, call: Call | JournalCall) -> Any:
        """The same, and the network keeps it."""
        self.sent.append(call)
        return super().both(call)

    @rule(data=st.data(), steps=st.integers(1, 4))
    def commit(self, data: st.DataObject, steps: int) -> None:
        """Transfers in the hands of a coordinator that makes so many steps."""
        parts = [
            Part(0, 0, self.new_attempt(self.draw_bundle(data))) for _ in range(data.draw(mostly([1], [2])))
        ]
        self.walk(Commit(parts, SHARD_IDS), steps)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """A message of long ago arrives once more."""
        super().both(data.draw(st.sampled_from(self.sent)))

    @rule()
    def recover(self) -> None:
        """Two looks of a resolver leave nothing in doubt."""
        for _ in range(2):
            attempts, commits = self.runner.run(self.pending())
            self.end(Recovery(0, attempts, commits, OWNER, SHARD_IDS))
            legs = [PendingTransfer(key, 0, body) for key, body in self.model.prepared.items()]
            journals = [PendingTransfer(key, 0, body) for key, body in self.model.unsettled.items()]
            self.end(JournalRecovery(legs, journals, OWNER))
        assert not self.model.prepared
        assert not self.model.unsettled
        assert not self.model.attempts
        assert not self.model.commits

    async def pending(self) -> tuple[list[PendingAttempt], list[PendingCommit]]:
        """All attempts and commits of the shard."""
        attempts, _ = await self.shard.pending_bundles_from(0, "prepared", 0, MAX_BATCH)
        commits, _ = await self.shard.pending_bundles_from(0, "unsettled", 0, MAX_BATCH)
        return attempts, commits

    def end(self, recovery: Any) -> None:
        """A resolver's steps."""
        calls = recovery.resolve()
        for feed in (recovery.finish, recovery.settle):
            calls = feed({shard: self.both(call) for shard, call in calls.items()})
        for call in calls.values():
            self.both(call)
        assert not recovery.missing

    @rule()
    def rotate(self) -> None:
        """The older generation is forgotten: not while something is unsettled, nor sooner than messages."""
        if not self.model.unsettled and not self.model.commits:
            super().rotate()
            self.sent.clear()

    def adds_up(self, kept: dict[str, Any]) -> None:
        """All balances and what is in flight sum to zero; no leg was ever missing."""
        totals = dict.fromkeys(CURRENCIES, 0)
        for account in kept["accounts"].values():
            totals[account.currency] += account.available_minor + account.held_minor
        for key, body in kept["prepared"].items():
            if key[:24] in kept["unsettled"]:
                leg = LegBody.unpack(body)
                totals[leg.currency] += leg.amount_minor
        for commit in kept["commits"].values():
            # Its attempt waits, or has ended.
            rows = commit.rows if commit.attempt_id in kept["attempts"] else ()
            for terms in [unpack_body(row.body) for row in rows if row.outcome == Outcome.COMMITTED]:
                totals[terms.currency] += terms.amount_minor
        assert not any(totals.values()), totals
        assert kept["alarms"] == 0


@pytest.fixture
def comparisons(redis_servers: list[RedisProcess]) -> Iterator[list[type[JournalComparison]]]:
    """The machines, against a real server."""
    Comparison.servers = redis_servers
    yield [JournalComparison, SoundComparison, OnlyJournals]
    OnlyJournals.faults = Faults()


@pytest.mark.timeout(600)  # a difference takes minutes to be made small
@pytest.mark.parametrize("index", [0, 1], ids=["any messages", "messages of coordinators"])
def test_library_and_model_agree(comparisons: list[type[JournalComparison]], index: int) -> None:
    """Any sequence of calls gets the same replies and leaves the same state and the same ledger."""
    run_state_machine_as_test(comparisons[index], settings=SETTINGS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "fault",
    [
        "refund_uncounted",
        "refund_kept",
        "hold_kept",
        "rest_kept",
        "expiry_ignored",
        "debit_unreserved",
        "debit_kept",
        "half_posted",
        "leg_forgotten",
        "coming_ignored",
        "closed_in_use",
        "backlog_ignored",
    ],
)
def test_a_difference_is_found(comparisons: list[type[JournalComparison]], fault: str) -> None:
    """A model that breaks one rule is told from the library."""
    comparisons[2].faults = Faults(**{fault: True})
    # The other one is that of pytest.raises, where only the shard refused.
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run_state_machine_as_test(comparisons[2], settings=SAME_EVERY_TIME)
