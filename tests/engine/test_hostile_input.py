"""Bytes that lie: snapshots, chunks and arguments are refused, or taken, and never crash a shard.

These tests run on the engine that checks memory and undefined behaviour: reading too far ends the server.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from shard_node.cluster.slots import slot
from shard_node.contract import (
    Abandon,
    AccountTerms,
    Command,
    Decide,
    Decided,
    Finish,
    Kind,
    Outcome,
    Post,
    Prepare,
    Prepared,
    Settle,
    bundle_of,
    pack_changes,
    pack_names,
    pack_terms,
)
from tests.engine.busy import (
    ALICE,
    BOB,
    CARLA,
    HOUR_MS,
    WORLD,
    attempt_id,
    capture,
    fill,
    hold,
    posted,
    transfer,
    uuid7,
)
from tests.engine.conftest import NOW_MS, StartServer
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard
from tests.engine.test_slots import SLOT, settled_slot

# The type's name in nine characters of six bits, then the version of its encoding in ten bits.
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TRIES = 3_000
_REFUSALS = ("malformed", "wrong number", "cannot be dropped")


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """A server with checks, whose shard is the fixture `shard`."""
    server = EngineServer(tmp_path_factory.mktemp("engine"), manual_clock=True, sanitized=True)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def dumped(shard: EngineShard) -> bytes:
    """What a snapshot has of the shard."""
    # In the clear, to be changed; what is changed has no checksum that fits.
    shard.server.redis.config_set("rdbcompression", "no")
    payload = shard.server.redis.dump("tallystick")
    assert payload is not None
    shard.raw("DEBUG", "SET-SKIP-CHECKSUM-VALIDATION", 1)
    return payload


def restore(shard: EngineShard, payload: bytes) -> bool:
    """Whether the shard of a snapshot was taken, under another name; it is gone after that."""
    try:
        shard.server.redis.restore("copy", 0, payload, replace=True)
    except ResponseError as error:
        if "Bad data format" not in str(error):
            raise
        return False
    shard.server.redis.delete("copy")
    return True


def type_id(version: int) -> int:
    """How a snapshot names the engine's type and the version of its encoding."""
    number = 0
    for letter in "tallystck":
        number = number << 6 | _ALPHABET.index(letter)
    return number << 10 | version


def full(shard: EngineShard) -> bytes:
    """The snapshot of a shard with some of everything."""
    fill(shard, NOW_MS)
    return dumped(shard)


def test_snapshot_of_a_newer_encoding_is_refused(shard: EngineShard) -> None:
    """An older engine says that a newer one wrote the file, and loads nothing of it."""
    payload = full(shard)
    assert restore(shard, payload)
    present, newer = (type_id(version).to_bytes(8) for version in (1, 2))
    assert payload.count(present) == 1
    assert not restore(shard, payload.replace(present, newer))
    assert "a newer engine wrote it (version 2)" in shard.server.log


def test_snapshot_with_an_unknown_section_is_refused(shard: EngineShard) -> None:
    """A section that this engine does not know would be lost: the whole shard is refused."""
    payload = full(shard)
    assert payload.count(b"\x07refunds") == 1
    assert not restore(shard, payload.replace(b"\x07refunds", b"\x07novelty"))
    assert "a section that this engine does not know" in shard.server.log


def test_snapshot_with_larger_records_is_refused(shard: EngineShard) -> None:
    """Records with fields that this engine does not know are a newer engine's."""
    payload = full(shard)
    # The size follows the name, as a number of the module's own: its opcode, then the number.
    size = payload.index(b"\x05ended") + len(b"\x05ended") + 1
    assert payload[size] == 18
    assert not restore(shard, payload[:size] + bytes((19,)) + payload[size + 1 :])
    assert "a newer engine wrote it" in shard.server.log


def test_snapshot_of_an_older_engine_is_read(shard: EngineShard) -> None:
    """What a record lacked when it was written is zero: here the last field of the shard's numbers."""
    shard.open_plain(ALICE)
    payload = dumped(shard)
    size = payload.index(b"\x04meta") + len(b"\x04meta") + 1
    # 14 bits in two bytes.
    assert payload[size] >> 6 == 1
    whole = (payload[size] & 0x3F) << 8 | payload[size + 1]
    name = payload.index(b"test/shard-0")
    # The head of the archive is empty: its length may go without being missed. The string is a byte shorter.
    string = name - whole - 2
    assert payload[string] >> 6 == 1
    shorter = bytearray(payload)
    for at, length in ((size, whole), (string, whole + len("test/shard-0"))):
        shorter[at : at + 2] = (0x4000 | length - 1).to_bytes(2)
    del shorter[name - 1]
    shard.server.redis.restore("tallystick", 0, bytes(shorter), replace=True)
    assert shard.account(ALICE).currency == "EUR"
    assert shard.info()["backlog_entries"] == 1


def test_damaged_snapshots_never_crash_the_server(shard: EngineShard) -> None:
    """Bytes changed, cut out or doubled anywhere in a snapshot: it is refused, or what it says is loaded."""
    payload = full(shard)
    chance = random.Random(7)
    refused = 0
    for _ in range(_TRIES):
        refused += not restore(shard, payload[:10] + _damaged(payload[10:-10], chance) + payload[-10:])
    assert refused > _TRIES // 2
    assert restore(shard, payload)


def _damaged(whole: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if not damaged:
            break
        at, size = chance.randrange(len(damaged)), chance.randrange(1, 20)
        match chance.randrange(4):
            case 0:
                damaged[at] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
            case 1:
                damaged[at] ^= 1 << chance.randrange(8)
            case 2:
                del damaged[at : at + size]
            case _:
                damaged[at:at] = damaged[at : at + size]
    return bytes(damaged)


def test_damaged_chunks_leave_log_and_shard_agreed(start_server: StartServer) -> None:
    """Whatever a damaged chunk says is refused as a whole, or taken so that the log brings back the same."""
    source, target = (start_server(manual_clock=True, sanitized=True) for _ in range(2))
    shards = []
    for server, name in ((source, "test/shard-0"), (target, "test/shard-1")):
        server.set_clock(NOW_MS)
        shards.append(EngineShard(server, name))
        shards[-1].bind()
    settled_slot(shards[0])
    chunks = list(shards[0].chunks(SLOT, 2_000))
    chance = random.Random(11)
    taken = 0
    for _ in range(_TRIES):
        chunk = chance.choice(chunks)
        try:
            shards[1].fenced("slot.import", SLOT, _damaged(chunk, chance))
        except ResponseError as error:
            if "malformed chunk" not in str(error):
                raise
        else:
            taken += 1
    assert taken
    _agrees_with_its_log(shards[1])


def _agrees_with_its_log(shard: EngineShard) -> None:
    """A shard that is killed, and one that is saved and loaded, is what it was."""
    before = shard.digest()
    shard.server.restart(killed=True)
    assert shard.digest() == before
    shard.server.redis.execute_command("DEBUG", "RELOAD")
    assert shard.digest() == before


def commands() -> list[tuple[str, list[bytes | int]]]:
    """Every command with arguments that fit, to be damaged."""
    committed = bytes((Outcome.COMMITTED,))
    plain = bundle_of([transfer(uuid7(NOW_MS, 100 + i), ALICE, BOB, 1 + i) for i in range(3)])
    across = bundle_of(
        [transfer(uuid7(NOW_MS, 110 + i), ALICE, "dora", 1 + i, payee_owner=1) for i in range(3)]
    )
    incoming = bundle_of(
        [transfer(uuid7(NOW_MS, 120 + i), "dora", ALICE, 1 + i, payee_owner=1) for i in range(3)]
    )
    general = bundle_of(
        [
            hold(uuid7(NOW_MS, 130), ALICE, 5),
            capture(uuid7(NOW_MS, 131), uuid7(NOW_MS, 31), ALICE, BOB, 3),
            transfer(uuid7(NOW_MS, 132), WORLD, BOB, 9, kind=Kind.DEPOSIT),
        ]
    )
    protocol: list[Command] = [
        Post(plain),
        Post(general),
        Prepare([Prepared(attempt_id(NOW_MS, 100), "test/shard-1", 1, incoming)]),
        Decide(
            [Decided(attempt_id(NOW_MS, 101), ["test/shard-1"], b"", b"", across)],
            [(attempt_id(NOW_MS, 4), 1)],
        ),
        Decide([Decided(attempt_id(NOW_MS, 102), ["s"], bytes((0, 43, 7)), bytes((0, 0, 1)), across)]),
        Finish([attempt_id(NOW_MS, 100), attempt_id(NOW_MS, 5)], [committed, committed * 3]),
        Settle([(attempt_id(NOW_MS, 101), 1)]),
        Abandon([attempt_id(NOW_MS, 103), attempt_id(NOW_MS, 101)]),
    ]
    made = [(one.COMMAND, one.arguments()) for one in protocol]
    terms = pack_terms(
        [AccountTerms("fresh", slot("fresh"), "EUR", -5, 6, 7), AccountTerms(ALICE, slot(ALICE), "EUR")]
    )
    others: list[tuple[str, list[bytes | int]]] = [
        ("open", [terms]),
        ("set_state", [0, pack_changes([(BOB, Kind.FREEZE), (BOB, Kind.UNFREEZE)])]),
        ("accounts", [pack_names([ALICE, BOB, "nobody"])]),
        ("check", [255, general]),
        ("names", [b"alice", slot(ALICE).to_bytes(2, "little")]),
        ("outcomes", [uuid7(NOW_MS, 1) + slot(ALICE).to_bytes(2, "little")]),
        ("in_doubt", [0, 5]),
        ("mark", []),
        ("rotate", [0, 0, 0]),
        ("expire", [3]),
        ("archived", [b"1800000000000-1", 1, b"head", 1]),
        ("slot.count", [slot(ALICE)]),
        ("slot.export", [slot(ALICE), b"", 100]),
        ("slot.drop", [slot("carla"), 2]),
    ]
    return made + [(f"tallystick.{name}", arguments) for name, arguments in others]


def _damage_arguments(arguments: list[bytes | int], chance: random.Random) -> list[bytes | int]:
    damaged = list(arguments)
    for _ in range(chance.choice((0, 1, 1, 2))):
        if not damaged:
            break
        at = chance.randrange(len(damaged))
        value = damaged[at]
        match chance.randrange(6):
            case 0:
                damaged[at] = chance.choice((b"", b"x", -1, 0, 2**63 - 1, 255, chance.randbytes(40)))
            case 1:
                damaged[at:at] = [value]
            case 2:
                del damaged[at]
            case _ if isinstance(value, bytes):
                damaged[at] = _damaged(value, chance)
    return damaged


@pytest.mark.parametrize("seed", range(4))
def test_damaged_commands_leave_log_and_shard_agreed(start_server: StartServer, seed: int) -> None:
    """Commands of all kinds, good and damaged: nothing crashes, and the log brings back the same."""
    server = start_server(manual_clock=True, sanitized=True)
    shard = EngineShard(server)
    server.set_clock(NOW_MS)
    shard.bind()
    fill(shard, NOW_MS)
    chance = random.Random(seed)
    kinds = commands()
    done = 0
    for step in range(_TRIES):
        name, arguments = chance.choice(kinds)
        if step % 500 == 0:
            server.set_clock(NOW_MS + HOUR_MS + step)
        try:
            shard.raw(name, shard.fence, *_damage_arguments(arguments, chance))
        except ResponseError as error:
            if not any(word in str(error) for word in _REFUSALS):
                raise
        else:
            done += 1
    assert done > _TRIES // 4
    _agrees_with_its_log(shard)


@pytest.mark.parametrize("seed", range(2))
def test_command_without_memory_changes_nothing(start_server: StartServer, seed: int) -> None:
    """Whichever request for memory fails, a command is refused and changes nothing, or is carried out."""
    server = start_server(manual_clock=True, sanitized=True)
    shard = EngineShard(server)
    server.set_clock(NOW_MS)
    shard.bind()
    fill(shard, NOW_MS)
    chunks = list(shard.chunks(slot(CARLA)))
    chance = random.Random(seed)
    kinds = commands()
    kinds += [("tallystick.slot.import", [slot(CARLA), chunk]) for chunk in chunks]
    refused = 0
    for step in range(_TRIES // 6):
        name, arguments = chance.choice(kinds)
        arguments = [_renewed(one, step) for one in arguments]
        before = shard.digest()
        shard.raw("tallystick.fail", chance.randrange(1, 8))
        try:
            shard.raw(name, shard.fence, *arguments)
        except OutOfMemoryError:
            refused += 1
            shard.raw("tallystick.fail", 0)
            assert shard.digest() == before
        shard.raw("tallystick.fail", 0)
    assert refused > 50
    _agrees_with_its_log(shard)


def _renewed(argument: bytes | int, step: int) -> bytes | int:
    """The same with other ids of transactions and attempts, so that there is something to do each time."""
    if isinstance(argument, int):
        return argument
    time = NOW_MS.to_bytes(6)
    return argument.replace(time, (NOW_MS + step // 2).to_bytes(6))


def test_shard_stays_usable_after_all_that(module_server: EngineServer, shard: EngineShard) -> None:
    """The server of these tests was never restarted by a crash."""
    shard.open_plain(ALICE)
    assert posted(shard, transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 1)) == [Outcome.COMMITTED]
    assert "crashed by signal" not in module_server.log
