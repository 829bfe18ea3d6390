"""A command that cannot have all its memory changes nothing, whichever allocation it is that fails."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from shard_node.contract.accounts import AccountTerms, pack_terms
from shard_node.contract.commands import (
    Abandon,
    Argument,
    Command,
    Decide,
    Decided,
    Finish,
    Post,
    Prepare,
    Prepared,
)
from shard_node.contract.transactions import Leg, Transaction, bundle_of
from shard_node.engine.loading import SOURCES
from shard_node.journals import Effect
from shard_node.outcomes import Outcome
from shard_node.slots import slot
from shard_node.transfers import Kind
from tests.engine.busy import (
    ALICE,
    BOB,
    LONG,
    OTHER,
    WORLD,
    attempt_id,
    capture,
    hold,
    refund,
    transfer,
    uuid7,
)
from tests.engine.conftest import NOW_MS

_PROGRAM: Final = Path(__file__).with_name("scarce_memory.c")
# What needs a server.
_LEFT_OUT: Final = frozenset(
    ("module.c", "shell.c", "commands.c", "clock.c", "inspect.c", "rdb_load.c", "rdb_save.c")
)
_FLAGS: Final = ("-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror")
_SANITIZED: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_COMMITTED: Final = bytes((Outcome.COMMITTED,))
# A system account whose name does not fit into its record.
_FEES: Final = "@" + "fees" * 8 + ":EUR"
_TRY, _OLD_TRY = attempt_id(NOW_MS, 1), attempt_id(NOW_MS, 2)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine without a server, with checks of memory: what is not given back is found too."""
    built = tmp_path_factory.mktemp("scarce") / "scarce_memory"
    sources = [source for source in sorted(SOURCES.glob("*.c")) if source.name not in _LEFT_OUT]
    command = [
        "gcc",
        *_FLAGS,
        *_SANITIZED,
        f"-I{SOURCES}",
        str(_PROGRAM),
        *map(str, sources),
        "-o",
        str(built),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


def _packed(command: Sequence[Argument | str]) -> bytes:
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    return struct.pack("<I", len(parts)) + b"".join(struct.pack("<I", len(part)) + part for part in parts)


def _asked(command: Command) -> list[Argument | str]:
    return [command.COMMAND.removeprefix("tallystick."), *command.arguments()]


def _posted(*transactions: Transaction) -> list[Argument | str]:
    return _asked(Post(bundle_of(transactions)))


def _opened(*names: str) -> list[Argument | str]:
    return ["open", pack_terms([AccountTerms(name, slot(name), "EUR", -5) for name in names])]


def _refusals(program: Path, *commands: Sequence[Argument | str]) -> int:
    """How often the last command was refused, each time for one more allocation that failed."""
    given = struct.pack("<I", len(commands)) + b"".join(map(_packed, commands))
    done = subprocess.run([program], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return int(done.stdout)


_BEGUN: Final[tuple[Sequence[Argument | str], ...]] = (
    ["bind", "test/shard-0", 1, 10**9, 10**9],
    _opened(ALICE, BOB),
    _opened(LONG),
    _posted(
        transfer(uuid7(NOW_MS, 1), WORLD, ALICE, 1_000_000, kind=Kind.DEPOSIT),
        transfer(uuid7(NOW_MS, 2), WORLD, LONG, 1_000_000, kind=Kind.DEPOSIT),
    ),
    _posted(
        hold(uuid7(NOW_MS, 3), ALICE, 500), transfer(uuid7(NOW_MS, 4), ALICE, LONG, 900, kind=Kind.PURCHASE)
    ),
)
# A hold, a capture, a refund, a purchase, and system accounts that begin.
_ALL_KINDS: Final = (
    hold(uuid7(NOW_MS, 10), ALICE, 20),
    capture(uuid7(NOW_MS, 11), uuid7(NOW_MS, 3), ALICE, _FEES, 100),
    refund(uuid7(NOW_MS, 12), uuid7(NOW_MS, 4), LONG, ALICE, 90, 900),
    transfer(uuid7(NOW_MS, 13), ALICE, "@more:EUR", 5, kind=Kind.PURCHASE),
    transfer(uuid7(NOW_MS, 14), BOB, ALICE, 10**9),
)


def _for(owner: int) -> bytes:
    """All kinds, as legs of one owner; a leg of another one where it is not the deciding shard."""
    there = Leg("elsewhere", Effect.CREDIT, 1, "EUR", 0 if owner else 1)
    rows = (
        replace(row, legs=(*(replace(leg, owner=owner) for leg in row.legs), there)) for row in _ALL_KINDS
    )
    return bundle_of(tuple(rows))


def test_post_is_all_or_nothing(program: Path) -> None:
    """Outcomes, purchases, holds with their details, refunds, system accounts."""
    assert _refusals(program, *_BEGUN, _posted(*_ALL_KINDS)) > 5


def test_prepare_is_all_or_nothing(program: Path) -> None:
    """Several attempts in one call."""
    prepared = [Prepared(name, OTHER, 1, _for(1)) for name in (_TRY, _OLD_TRY)]
    assert _refusals(program, *_BEGUN, _asked(Prepare(prepared))) > 5


def test_decide_is_all_or_nothing(program: Path) -> None:
    """Also settlements that ride along do not count."""
    earlier = bundle_of((transfer(uuid7(NOW_MS, 20), ALICE, "dora", 5, payee_owner=1),))
    first = _asked(Decide([Decided(_OLD_TRY, [OTHER], b"", b"", earlier)]))
    decide = Decide([Decided(_TRY, [OTHER], b"", b"", _for(0))], [(_OLD_TRY, 1)])
    assert _refusals(program, *_BEGUN, first, _asked(decide)) > 5


def test_finish_is_all_or_nothing(program: Path) -> None:
    """What was prepared stays prepared."""
    prepare = _asked(Prepare([Prepared(_TRY, OTHER, 1, _for(1))]))
    finish = _asked(Finish([_TRY, _OLD_TRY], [_COMMITTED, b"\0"]))
    assert _refusals(program, *_BEGUN, prepare, finish) > 2


def test_abandon_is_all_or_nothing(program: Path) -> None:
    """No attempt is marked unless all are."""
    assert _refusals(program, *_BEGUN, _asked(Abandon([_TRY, _OLD_TRY]))) > 1


def test_rotate_is_all_or_nothing(program: Path) -> None:
    """Nothing is forgotten unless what is carried over has its place."""
    decide = _asked(Decide([Decided(_TRY, [OTHER], b"", b"", _for(0))]))
    assert _refusals(program, *_BEGUN, decide, ["rotate", 0, 0], ["rotate", 0, 0]) > 5
