"""The client of a shard says what the engine did and holds, as values."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shard_node.client import Shard, connect
from shard_node.cluster.slots import slot
from shard_node.contract import (
    SYSTEM_SLOT,
    AccountState,
    AccountTerms,
    Effect,
    Finish,
    Kind,
    Leg,
    Outcome,
    Post,
    Prepare,
    Prepared,
    PreparedAttempt,
    ShardStatus,
    Transaction,
    bundle_of,
)
from shard_node.contract.lookups import UnsettledCommit
from shard_node.errors import (
    ShardDefectError,
    ShardFullError,
    ShardNodeError,
    ShardUnavailableError,
    StaleEpochError,
    WrongShardError,
)
from tests.engine.busy import (
    ALICE,
    BOB,
    CARLA,
    HOUR_MS,
    LONG,
    POCKETS,
    WORLD,
    attempt_id,
    fill,
    hold,
    transfer,
    uuid7,
)
from tests.engine.conftest import NOW_MS, StartServer
from tests.engine.server import HOST, EngineServer
from tests.engine.shard import EngineShard


def client_of(server: EngineServer, fence: str = "test/shard-0/1") -> Shard:
    """A client of the shard on a server; to be closed."""
    return Shard("shard-0", fence, connect(f"{HOST}:{server.port}"))


@pytest.fixture
async def client(shard: EngineShard) -> AsyncIterator[Shard]:
    """A client of an empty shard."""
    async with client_of(shard.server) as opened:
        yield opened


@pytest.fixture
async def busy(shard: EngineShard, client: Shard) -> Shard:
    """A client of a shard that holds some of everything; its clock is an hour after NOW_MS."""
    fill(shard, NOW_MS)
    return client


def deposit(number: int, account: str, amount: int) -> bytes:
    """A bundle with one deposit."""
    legs = (Leg(WORLD, Effect.DEBIT, amount, "EUR"), Leg(account, Effect.CREDIT, amount, "EUR"))
    return bundle_of([Transaction(uuid7(NOW_MS, number), Kind.DEPOSIT, slot(account), legs)])


def decision(number: int, account: str) -> bytes:
    """What an outcome is remembered under."""
    return uuid7(NOW_MS, number) + slot(account).to_bytes(2, "little")


# ------------------------------------------------------------------ accounts


async def test_accounts_are_opened_once_with_their_terms(client: Shard) -> None:
    """The same terms again are no error, others are refused; either way the account is told as it stands."""
    terms = AccountTerms(ALICE, slot(ALICE), "EUR", -500, 9_000, 700)
    codes, (account,) = await client.open([terms])
    assert codes == [Outcome.COMMITTED]
    assert (account.minimum_minor, account.maximum_balance_minor, account.maximum_transfer_minor) == (
        -500,
        9_000,
        700,
    )
    assert (account.state, account.currency, account.slot) == (AccountState.OPEN, "EUR", slot(ALICE))
    codes, accounts = await client.open([terms, AccountTerms(BOB, slot(BOB), "EUR")])
    assert codes == [Outcome.COMMITTED, Outcome.COMMITTED]
    codes, (account,) = await client.open([AccountTerms(ALICE, slot(ALICE), "USD")])
    assert (codes, account) == ([Outcome.ACCOUNT_EXISTS], accounts[0])


async def test_state_changes_and_can_be_tried(client: Shard) -> None:
    """A dry run says VALID and changes nothing; what is not there is told."""
    await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
    codes, (account,) = await client.set_state([(ALICE, Kind.FREEZE)], validate_only=True)
    assert codes == [Outcome.VALID]
    assert account is not None
    assert account.state is AccountState.OPEN
    codes, (account, nobody) = await client.set_state([(ALICE, Kind.FREEZE), ("nobody", Kind.CLOSE)])
    assert codes == [Outcome.COMMITTED, Outcome.ACCOUNT_NOT_FOUND]
    assert account is not None
    assert (account.state, nobody) == (AccountState.FROZEN, None)


async def test_accounts_say_what_prepared_debits_hold_back(busy: Shard) -> None:
    """None for one that is not there; what only an attempt reserves is told beside what is held."""
    alice, nobody = await busy.accounts([ALICE, "nobody"])
    assert nobody is None
    assert alice is not None
    # Three holds of 700, 701 and 702 are left, and the journal's debit of 60 is prepared.
    assert (alice.held_minor, alice.reserved_minor) == (2_163, 60)
    assert await busy.accounts([]) == []


async def test_check_says_of_each_leg_whether_it_could_be_carried_out(busy: Shard) -> None:
    """Only those of the owner asked for; nothing changes."""
    before = await busy.digest()
    rich = transfer(uuid7(NOW_MS, 80), ALICE, BOB, 10, payee_owner=1)
    poor = transfer(uuid7(NOW_MS, 81), ALICE, "nobody", 10**12, payee_owner=1)
    asked = bundle_of([rich, poor])
    assert await busy.check(asked) == bytes((0, 0, Outcome.INSUFFICIENT_FUNDS, Outcome.ACCOUNT_NOT_FOUND))
    assert await busy.check(asked, 1) == bytes((0, Outcome.ACCOUNT_NOT_FOUND))
    assert await busy.digest() == before


async def test_names_go_on_where_a_page_ended(client: Shard) -> None:
    """A slot of more names than a call reads is read on by the cursor, then the next one."""
    many = [f"{{big}}:{number}" for number in range(5_000)]
    big, small = slot("{big}"), slot(ALICE)
    await client.open([AccountTerms(ALICE, small, "EUR"), *(AccountTerms(one, big, "EUR") for one in many)])
    cursor, (first,) = await client.account_names([big, small])
    assert cursor
    assert 0 < len(first) < len(many)
    further, (rest, last) = await client.account_names([big, small], cursor)
    assert (further, last) == (b"", [ALICE])
    assert sorted(first + rest) == sorted(many)


async def test_pages_have_every_account_once(busy: Shard) -> None:
    """Customers' and the system's, each as it is, however many pages it takes."""
    many = [f"{{big}}:{number}" for number in range(5_000)]
    await busy.open([AccountTerms(name, slot("{big}"), "EUR") for name in many])
    found = [row async for page in busy.accounts_by_page() for row in page]
    assert sorted(name for name, _ in found) == sorted([*many, *POCKETS, ALICE, BOB, CARLA, LONG, WORLD])
    assert dict(found)[WORLD].slot == SYSTEM_SLOT
    assert dict(found)[WORLD].available_minor == -4_000_000
    assert [dict(found)[ALICE]] == await busy.accounts([ALICE])


async def test_holds_whose_time_is_over_are_ended(busy: Shard) -> None:
    """As many as are due and not pinned by an attempt, at most as many as asked for."""
    assert await busy.expire_holds(1) == 1
    assert await busy.expire_holds(10) == 1
    assert await busy.expire_holds(10) == 0


# ------------------------------------------------------------------ transactions and outcomes


async def test_commands_are_answered_as_the_contract_has_it(client: Shard) -> None:
    """Post moves money once, and a repetition is told what became of it."""
    await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
    answer = await client.call(Post(deposit(1, ALICE, 70)))
    assert answer.codes[0] == bytes((Outcome.COMMITTED,))
    assert struct.unpack("<2q", answer.balances[0]) == (-70, 70)
    assert (await client.call(Post(deposit(1, ALICE, 70)))).codes[0] == bytes((Outcome.COMMITTED,))
    (account,) = await client.accounts([ALICE])
    assert account is not None
    assert account.available_minor == 70


async def test_outcomes_say_what_was_decided(busy: Shard) -> None:
    """Of a purchase who paid whom, of a refusal its leg; None for what nobody decided."""
    purchase, refusal, nothing = await busy.outcomes(
        [decision(10, ALICE), decision(11, ALICE), decision(99, ALICE)]
    )
    assert purchase is not None
    assert refusal is not None
    assert (purchase.outcome, purchase.amount_minor, purchase.currency) == (Outcome.COMMITTED, 5_000, "EUR")
    assert (purchase.payer, purchase.payee, purchase.decided_at_ms) == (ALICE, LONG, NOW_MS)
    asked = transfer(uuid7(NOW_MS, 10), ALICE, LONG, 5_000, kind=Kind.PURCHASE)
    assert purchase.fingerprint == asked.fingerprint
    assert (refusal.outcome, refusal.leg, refusal.payer) == (Outcome.INSUFFICIENT_FUNDS, 0, None)
    assert nothing is None
    assert await busy.outcome(decision(10, ALICE)) == purchase


async def test_refused_leg_is_told(client: Shard) -> None:
    """The leg's place in its transaction, not zero, where the payee's account is the reason."""
    await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
    asked = transfer(uuid7(NOW_MS, 1), ALICE, "nobody", 5)
    await client.call(Post(bundle_of([asked])))
    found = await client.outcome(asked.decision)
    assert found is not None
    assert (found.outcome, found.leg) == (Outcome.ACCOUNT_NOT_FOUND, 1)


async def test_rotation_that_others_made_is_not_made_again(shard: EngineShard, client: Shard) -> None:
    """A rotation that was decided on before another one was made forgets nothing: it is too early."""
    await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
    await client.call(Post(deposit(1, ALICE, 70)))
    rotated_ms = (await client.info()).rotated_ms
    assert await client.rotate(rotated_ms=rotated_ms) == 0
    assert await client.rotate(rotated_ms=rotated_ms) is None
    assert await client.outcome(decision(1, ALICE)) is not None


async def test_rotation_waits_for_its_time(shard: EngineShard, client: Shard) -> None:
    """Too early says None and forgets nothing; two rotations forget."""
    await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
    await client.call(Post(deposit(1, ALICE, 70)))
    assert await client.rotate(HOUR_MS) == 0
    assert await client.rotate(HOUR_MS) is None
    shard.server.set_clock(NOW_MS + HOUR_MS)
    assert await client.outcome(decision(1, ALICE)) is not None
    assert await client.rotate(HOUR_MS, once_archived=True) is None
    assert await client.rotate(HOUR_MS) == 0
    assert await client.outcome(decision(1, ALICE)) is None
    assert await client.horizon_ms() == NOW_MS + 1


async def test_horizon_follows_the_window(shard: EngineShard, client: Shard) -> None:
    """Ids older than the window count as expired, by the shard's time."""
    await client.bind(HOUR_MS, 1_000)
    assert await client.horizon_ms() == NOW_MS - HOUR_MS
    shard.server.set_clock(NOW_MS + 5)
    assert (await client.clock_ms(), await client.horizon_ms()) == (NOW_MS + 5, NOW_MS + 5 - HOUR_MS)


# ------------------------------------------------------------------ in doubt


async def test_what_is_in_doubt_is_told_as_values(busy: Shard) -> None:
    """The oldest first: a commit with who has finished it, then attempts with their deciding shards."""
    commit, prepared, incoming = await busy.in_doubt()
    assert isinstance(commit, UnsettledCommit)
    assert commit.attempt_id == attempt_id(NOW_MS, 4)
    assert commit.participants == (("test/shard-1", True), ("test/shard-2", False))
    assert (commit.codes, commit.since_ms) == (bytes((Outcome.COMMITTED,) * 2), NOW_MS)
    assert isinstance(prepared, PreparedAttempt)
    assert (prepared.attempt_id, prepared.owner) == (attempt_id(NOW_MS, 5), 2)
    assert prepared.codes == bytes((Outcome.PREPARED, Outcome.PREPARED, Outcome.ACCOUNT_NOT_FOUND))
    assert isinstance(incoming, PreparedAttempt)
    assert incoming.decider == "test/a-shard-with-a-longer-name"
    wanted = transfer(uuid7(NOW_MS, 55), "dora", LONG, 77, payee_owner=1)
    assert incoming.bundle == bundle_of([wanted])
    assert commit.serial < prepared.serial < incoming.serial
    assert await busy.in_doubt(0, 1) == [commit]
    assert await busy.in_doubt(commit.serial) == [prepared, incoming]
    assert await busy.in_doubt(incoming.serial) == []


async def test_what_is_young_is_left_out(shard: EngineShard, busy: Shard) -> None:
    """An attempt is listed from the age asked for on, whatever came after it."""
    late = bundle_of([transfer(uuid7(NOW_MS, 90), "dora", BOB, 3, payee_owner=1)])
    later_ms = NOW_MS + HOUR_MS
    await busy.call(Prepare([Prepared(attempt_id(later_ms, 1), "shard-1", 1, late)]))
    shard.server.set_clock(later_ms + 10)
    ages = {0: 4, 10: 4, 11: 3, HOUR_MS + 10: 3, HOUR_MS + 11: 0}
    found = {age: len([one async for one in busy.all_in_doubt(age)]) for age in ages}
    assert found == ages


async def test_all_in_doubt_goes_through_all_pages(client: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, in their order, and none is missed where a page ends."""
    await client.open([AccountTerms(BOB, slot(BOB), "EUR")])
    ids = [attempt_id(NOW_MS, number) for number in range(7)]
    rows = [
        bundle_of([transfer(uuid7(NOW_MS, 100 + n), "dora", BOB, 1, payee_owner=1)]) for n in range(len(ids))
    ]
    await client.call(Prepare([Prepared(one, "shard-1", 1, row) for one, row in zip(ids, rows, strict=True)]))
    in_doubt = client.in_doubt
    monkeypatch.setattr(Shard, "in_doubt", lambda _, after=0: in_doubt(after, 3))
    assert [one.attempt_id async for one in client.all_in_doubt()] == ids
    dropped = [bytes((Outcome.ABANDONED,))] * len(ids)
    await client.call(Finish(ids, dropped))
    assert [one async for one in client.all_in_doubt()] == []


# ------------------------------------------------------------------ the ledger and the shard


async def test_ledger_is_read_and_trimmed(shard: EngineShard, client: Shard) -> None:
    """Frames come in order after an id; what is told as archived is forgotten, once."""
    assert await client.ledger_after("0", 10) == []
    empty = await client.ledger_state()
    assert (empty.number, empty.head, empty.stream_id, empty.backlog, empty.length) == (0, b"", "0-0", 0, 0)
    await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
    await client.call(Post(deposit(1, ALICE, 70)))
    (opened, frame), (posted, _) = await client.ledger_after("0", 10)
    assert [(opened.encode(), frame), *shard.frames()[1:]] == shard.frames()
    assert [entry_id for entry_id, _ in await client.ledger_after(opened, 10)] == [posted]
    assert len(await client.ledger_after("0", 1)) == 1
    for _ in range(2):
        await client.archived(opened, 1, b"1" * 32, 1)
    state = await client.ledger_state()
    assert (state.number, state.head, state.stream_id) == (1, b"1" * 32, opened)
    assert (state.backlog, state.length, state.now_ms) == (2, 1, NOW_MS)
    assert await client.mark() == (NOW_MS, posted)


async def test_full_ledger_is_a_full_shard(client: Shard) -> None:
    """Nothing was begun, and the caller may say so."""
    await client.bind(HOUR_MS, 1)
    await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
    with pytest.raises(ShardFullError, match="LEDGER_FULL"):
        await client.open([AccountTerms(BOB, slot(BOB), "EUR")])


async def test_status_has_what_the_engine_says(shard: EngineShard, busy: Shard) -> None:
    """Every field by the engine's name for it."""
    status = await busy.info()
    told: dict[str, Any] = shard.info()
    for name in ("shard", "last_frame", "archived_frame"):
        told[name] = told[name].decode()
    assert {name: getattr(status, name) for name in told} == told
    assert status.fence == busy.fence
    assert (status.accounts, status.prepared_attempts, status.unsettled_commits) == (10, 2, 1)
    assert status.oldest_in_doubt_ms == HOUR_MS


def test_status_of_a_newer_engine_is_read() -> None:
    """What this release does not know is left out; a field that is missing is an error."""
    texts = {"shard": b"c/s", "last_frame": b"1-0", "archived_frame": b"0-0", "archived_head": b""}
    names = [*ShardStatus.__dataclass_fields__, "of_tomorrow"]
    reply = {name.encode(): texts.get(name, 7) for name in names}
    in_turns = [part for pair in reply.items() for part in pair]
    assert ShardStatus.read(reply).fence == ShardStatus.read(in_turns).fence == "c/s/7"
    with pytest.raises(KeyError):
        ShardStatus.read(in_turns[2:])


async def test_digest_is_the_engines(shard: EngineShard, busy: Shard) -> None:
    """Of a slot or of all; it differs where something else is held."""
    assert await busy.digest() == shard.digest()
    assert await busy.digest(slot(ALICE)) == shard.digest(slot(ALICE))
    before = await busy.digest(slot(ALICE))
    await busy.set_state([(ALICE, Kind.FREEZE)])
    assert await busy.digest(slot(ALICE)) != before


# ------------------------------------------------------------------ errors

Ask = Callable[[Shard], Awaitable[Any]]
CALLS: list[Ask] = [
    lambda client: client.call(Post(deposit(1, ALICE, 70))),
    lambda client: client.open([AccountTerms("eve", slot("eve"), "EUR")]),
    lambda client: client.set_state([(ALICE, Kind.FREEZE)]),
    lambda client: client.accounts([ALICE]),
    lambda client: client.check(deposit(1, ALICE, 70)),
    lambda client: client.account_names([1]),
    lambda client: client.expire_holds(1),
    lambda client: client.outcome(decision(1, ALICE)),
    lambda client: client.rotate(),
    lambda client: client.in_doubt(),
    lambda client: client.archived("1-0", 1, b"", 0),
    lambda client: client.ledger_state(),
    lambda client: client.ledger_after("0", 1),
    lambda client: client.mark(),
    lambda client: client.info(),
]


@pytest.mark.parametrize("ask", CALLS)
async def test_another_fence_is_refused_by_every_call(shard: EngineShard, busy: Shard, ask: Ask) -> None:
    """Also by those that only look: another shard may answer on an address. Nothing is written."""
    before = await busy.digest()
    for fence in ("test/shard-0/2", "other/shard-0/1"):
        async with client_of(shard.server, fence) as stale:
            with pytest.raises(StaleEpochError, match="shard-0"):
                await ask(stale)
    assert await busy.digest() == before
    shard.server.redis.flushall()
    with pytest.raises(StaleEpochError):
        await ask(busy)


async def test_bind_raises_the_epoch_and_never_lowers_it(shard: EngineShard, client: Shard) -> None:
    """From then on the older fence is refused; another shard's data is never taken over."""
    async with client_of(shard.server, "test/shard-0/5") as later:
        await later.bind(HOUR_MS, 1_000)
        assert (await later.info()).epoch == 5
    with pytest.raises(StaleEpochError):
        await client.info()
    with pytest.raises(StaleEpochError, match="at epoch 5"):
        await client.bind(HOUR_MS, 1_000)
    async with client_of(shard.server, "test/shard-1/9") as other:
        with pytest.raises(WrongShardError, match="holds test/shard-0"):
            await other.bind(HOUR_MS, 1_000)


async def test_renamed_shard_refuses_the_fence_it_had(shard: EngineShard, client: Shard) -> None:
    """It is the other cluster's; a second rename under the old fence changes nothing."""
    await client.rename("copy", 3)
    with pytest.raises(StaleEpochError, match="at copy/shard-0/3"):
        await client.rename("other", 4)
    async with client_of(shard.server, "copy/shard-0/3") as renamed:
        assert (await renamed.info()).shard == "copy/shard-0"


async def test_malformed_call_is_a_defect(client: Shard) -> None:
    """No correct caller makes one."""
    with pytest.raises(ShardDefectError, match="malformed bundle"):
        await client.call(Post(b"nonsense"))


async def test_restart_is_got_over_and_an_end_is_told(start_server: StartServer) -> None:
    """A connection from before a restart is made anew within the call; without a server none answers."""
    server = start_server()
    async with client_of(server) as client:
        await client.bind(HOUR_MS, 1_000)
        server.restart(killed=True)
        assert await client.accounts(["nobody"]) == [None]
        server.stop()
        for ask in (client.mark, client.info):
            with pytest.raises(ShardUnavailableError) as caught:
                await ask()
            assert isinstance(caught.value, ShardNodeError)


async def test_full_is_not_told_of_a_call_that_may_have_been_carried_out(
    client: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repetition was refused; of the call before it, whose connection broke, nobody knows."""
    await client.bind(HOUR_MS, 0)
    once = client.redis.link.call
    calls = []

    async def breaks_once(*arguments: bytes | int | str) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise RedisConnectionError("reset by peer")
        return await once(*arguments)

    monkeypatch.setattr(client.redis.link, "call", breaks_once)
    with pytest.raises(ShardUnavailableError, match=r"LEDGER_FULL .*, and the call before it got no answer"):
        await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
    assert calls[0] == calls[1]
    with pytest.raises(ShardFullError):
        await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])


async def test_memory_limit_is_a_full_shard(start_server: StartServer) -> None:
    """What begins something is refused, what looks and what lands is not."""
    server = start_server()
    async with client_of(server) as client:
        await client.bind(HOUR_MS, 1_000)
        server.redis.config_set("maxmemory", 1)
        with pytest.raises(ShardFullError):
            await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
        assert await client.accounts(["nobody"]) == [None]
        assert (await client.ledger_state()).length == 0
        await client.mark()


async def test_hold_is_listed_with_its_account(client: Shard) -> None:
    """A hold moves what is available to what is held, and is no reservation of an attempt."""
    await client.open([AccountTerms(ALICE, slot(ALICE), "EUR")])
    await client.call(Post(deposit(1, ALICE, 70)))
    await client.call(Post(bundle_of([hold(uuid7(NOW_MS, 2), ALICE, 30)])))
    (account,) = await client.accounts([ALICE])
    assert account is not None
    assert (account.available_minor, account.held_minor, account.reserved_minor) == (40, 30, 0)
