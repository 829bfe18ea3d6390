"""The module as a part of Redis: how it loads, what its commands say of themselves, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from shard_node.engine.loading import engine_path
from tests.engine.busy import ALICE
from tests.engine.conftest import NOW_MS, StartServer
from tests.engine.server import EngineServer
from tests.engine.shard import EngineShard

PROTOCOL = (
    "post",
    "prepare",
    "decide",
    "finish",
    "settle",
    "abandon",
    "open",
    "set_state",
    "rotate",
    "expire",
)
# What may not be refused for lack of memory: what is in flight lands, and the shard is kept in order.
LANDING = (
    "decide",
    "finish",
    "settle",
    "abandon",
    "rotate",
    "expire",
    "archived",
    "bind",
    "rename",
    "mark",
    "outcomes",
    "slot.drop",
    "apply",
)
BEGINNING = ("post", "prepare", "open", "set_state", "slot.import")
READING = ("accounts", "check", "names", "in_doubt", "digest", "account", "info", "slot.count", "slot.export")


def test_every_command_documents_itself(shard: EngineShard) -> None:
    """COMMAND DOCS has a summary, a complexity and a sentence for each argument of every command."""
    listed = [name.decode() for name in shard.raw("COMMAND LIST", "FILTERBY", "MODULE", "tallystick")]
    # Only the build for tests has this one.
    names = [name for name in listed if name != "tallystick.fail"]
    assert len(names) == len(LANDING) + len(BEGINNING) + len(READING) + len(("clock", "time"))
    for name, docs in shard.raw("COMMAND DOCS", *names).items():
        assert docs[b"summary"], name
        assert docs[b"complexity"], name
        for argument in docs.get(b"arguments", []):
            assert argument[b"summary"], (name, argument)


def test_commands_have_the_flags_that_memory_and_replicas_ask_for(shard: EngineShard) -> None:
    """Redis refuses new work when memory is short, lets what is in flight land, and reads on replicas."""
    flags = {
        name.removeprefix("tallystick."): set(about["flags"])
        for name, about in shard.server.redis.command().items()
        if name.startswith("tallystick.")
    }
    assert {name for name, its in flags.items() if {"write", "denyoom"} <= its} == set(BEGINNING)
    assert {name for name, its in flags.items() if "write" in its and "denyoom" not in its} == set(LANDING)
    assert {name for name, its in flags.items() if "readonly" in its} == set(READING)


def test_another_fence_is_refused_and_nothing_is_written(shard: EngineShard) -> None:
    """A caller with another topology is told the shard's epoch, and the shard stays as it is."""
    before = shard.digest()
    stale = EngineShard(shard.server, epoch=2)
    with pytest.raises(ResponseError, match="STALE_EPOCH the shard is at test/shard-0/1"):
        stale.open_plain(ALICE)
    other = EngineShard(shard.server, "test/shard-9")
    with pytest.raises(ResponseError, match="STALE_EPOCH"):
        other.accounts(ALICE)
    assert shard.digest() == before


def test_unbound_server_has_no_shard(shard: EngineShard) -> None:
    """Before it is bound, a server answers commands with STALE_EPOCH, and makes nothing."""
    shard.server.redis.flushall()
    with pytest.raises(ResponseError, match="STALE_EPOCH the shard is at no epoch"):
        shard.open_plain(ALICE)
    with pytest.raises(ResponseError, match="STALE_EPOCH this Redis holds no shard"):
        shard.digest()
    with pytest.raises(ResponseError, match="malformed"):
        shard.raw("tallystick.bind", "no-slash", 1, 1, 1)
    assert shard.server.redis.dbsize() == 0


def test_bind_keeps_to_its_shard_and_its_epoch_never_falls(shard: EngineShard) -> None:
    """Another shard and a lower epoch are refused; a higher one makes a new fence."""
    with pytest.raises(ResponseError, match="WRONG_SHARD this Redis holds test/shard-0"):
        EngineShard(shard.server, "test/shard-1").bind()
    later = EngineShard(shard.server, epoch=5)
    later.bind()
    later.open_plain(ALICE)
    with pytest.raises(ResponseError, match="STALE_EPOCH the shard is at epoch 5"):
        EngineShard(shard.server, epoch=4).bind()
    assert later.info()["epoch"] == 5


def test_renamed_shard_is_one_of_the_other_cluster(start_server: StartServer) -> None:
    """What it holds stays; the old fence is refused, and nobody else takes it over. Its copies follow."""
    server, replica = start_server(), start_server()
    shard = EngineShard(server)
    shard.bind()
    shard.open_plain(ALICE)
    replica.follow(server)
    assert shard.fenced("rename", "copy", 7) == b"OK"
    with pytest.raises(ResponseError, match="STALE_EPOCH the shard is at copy/shard-0/7"):
        shard.fenced("rename", "copy", 8)
    with pytest.raises(ResponseError, match="WRONG_SHARD this Redis holds copy/shard-0"):
        EngineShard(server, epoch=9).bind()
    replica.caught_up(server)
    server.restart(killed=True)
    for one in (server, replica):
        renamed = EngineShard(one, "copy/shard-0", 7)
        assert (renamed.info()["shard"], renamed.info()["epoch"]) == (b"copy/shard-0", 7)
        assert renamed.account(ALICE).currency == "EUR"
    EngineShard(server, "copy/shard-0", 8).bind()


@pytest.mark.parametrize(
    ("cluster", "epoch", "why"),
    [
        ("", 2, "malformed cluster"),
        ("a/b", 2, "malformed cluster"),
        ("a b", 2, "malformed cluster"),
        ("x" * 248, 2, "malformed cluster"),
        ("x" * 256, 2, "malformed cluster"),
        ("copy", "x", "malformed epoch"),
        ("copy", 1, "STALE_EPOCH the shard is at epoch 1"),
    ],
)
def test_rename_to_what_is_no_cluster_is_refused(
    shard: EngineShard, cluster: str, epoch: int | str, why: str
) -> None:
    """Nor does the epoch stay: the old fence would be good in the cluster of that name."""
    before = shard.digest()
    with pytest.raises(ResponseError, match=why):
        shard.fenced("rename", cluster, epoch)
    assert shard.digest() == before
    assert shard.fenced("rename", "x" * 247, 2) == b"OK"


def test_full_ledger_refuses_what_begins_something_new(shard: EngineShard) -> None:
    """At the backlog's limit nothing new begins, while the shard can still be read and kept in order."""
    shard.bind(backlog_limit=1)
    shard.open_plain(ALICE)
    with pytest.raises(ResponseError, match="LEDGER_FULL 1 entries wait to be archived"):
        shard.open_plain("bob")
    shard.account(ALICE)
    frame = shard.frames()[-1][0]
    shard.fenced("archived", frame, 1, b"hash", 1)
    shard.open_plain("bob")


@pytest.mark.parametrize("name", [*PROTOCOL, "accounts", "names", "slot.export", "digest"])
def test_wrong_number_of_arguments_is_refused(shard: EngineShard, name: str) -> None:
    """A command with too few or too many arguments, or half a group, is no command."""
    for arguments in ([], [shard.fence], [shard.fence, *["1"] * 18]):
        if name == "digest" and not arguments:
            continue
        with pytest.raises(ResponseError, match=r"wrong number|malformed|STALE_EPOCH"):
            shard.raw(f"tallystick.{name}", *arguments)


def test_clients_may_not_apply_entries_of_the_log(shard: EngineShard) -> None:
    """`tallystick.apply` is for replicas and for loading; a client's is refused, whatever it says."""
    before = shard.digest()
    with pytest.raises(ResponseError, match="only for the log"):
        shard.raw("tallystick.apply", 1, "tallystick.bind", 1, "-", "", "test/x", 9, 1, 1)
    with pytest.raises(ResponseError, match="only for the log"):
        shard.raw("tallystick.apply", 1, "nonsense", 1, "-", "")
    assert shard.digest() == before


def test_foreign_keys_in_the_engines_places_are_refused(shard: EngineShard) -> None:
    """A string where the shard or its ledger belongs is an error, not a crash, and nothing is changed."""
    redis = shard.server.redis
    redis.set("ledger", "not a stream")
    with pytest.raises(ResponseError, match="WRONGTYPE the key ledger"):
        shard.open_plain(ALICE)
    redis.flushall()
    redis.set("tallystick", "not a shard")
    with pytest.raises(ResponseError, match="WRONGTYPE the key tallystick"):
        shard.bind()
    with pytest.raises(ResponseError, match="WRONGTYPE the key tallystick"):
        shard.info()


def test_time_goes_by_the_clock_and_never_back(shard: EngineShard) -> None:
    """A call's time is the larger of the clock and the last time used."""
    shard.server.set_clock(NOW_MS + 5_000)
    assert shard.fenced("mark")[0] == NOW_MS + 5_000
    shard.server.set_clock(NOW_MS)
    assert shard.fenced("mark")[0] == NOW_MS + 5_000


def test_clock_of_production_cannot_be_set(start_server: StartServer) -> None:
    """Without `clock manual` the clock goes by itself, and follows the wall clock."""
    server = start_server()
    shard = EngineShard(server)
    shard.bind()
    with pytest.raises(ResponseError, match="clock manual"):
        server.set_clock(NOW_MS)
    seconds, _ = server.redis.time()
    assert abs(shard.fenced("mark")[0] - seconds * 1000) < 10_000
    assert shard.raw("tallystick.time") == 0
    assert shard.raw("tallystick.time", "FOLLOW") == 0
    assert shard.info()["clock_lag_ms"] == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("aof-use-rdb-preamble no", "aof-use-rdb-preamble must be yes"),
        (f'loadmodule "{engine_path()}" what ever', "takes no arguments but"),
    ],
)
def test_server_does_not_start_with_settings_that_would_lose_data(
    tmp_path: Path, more: str, says: str
) -> None:
    """A setting that the engine cannot live with ends the start, and the log says which."""
    server = EngineServer(tmp_path / "server", more=more)
    try:
        with pytest.raises(RuntimeError, match=says):
            server.start()
    finally:
        server.stop()


def test_entry_of_a_newer_log_ends_the_process(start_server: StartServer) -> None:
    """A log entry that this engine cannot read ends the server, rather than leave a part out."""
    server = start_server(manual_clock=True)
    shard = EngineShard(server)
    server.set_clock(NOW_MS)
    shard.bind()
    server.stop()
    _edit_log(
        server,
        lambda log: log.replace(b"$1\r\n1\r\n$15\r\ntallystick.bind", b"$1\r\n2\r\n$15\r\ntallystick.bind"),
    )
    server.launch()
    assert server.ended() != 0
    assert "an entry of the log cannot be applied" in server.log


def test_log_without_its_beginning_ends_the_process(start_server: StartServer) -> None:
    """A log whose shard was never bound is not applied."""
    server = start_server(manual_clock=True)
    shard = EngineShard(server)
    server.set_clock(NOW_MS)
    shard.bind()
    server.stop()
    _edit_log(server, lambda log: log.replace(b"$15\r\ntallystick.bind", b"$15\r\ntallystick.mark"))
    server.launch()
    assert server.ended() != 0
    assert "an entry of the log cannot be applied" in server.log


def _edit_log(server: EngineServer, edit: Callable[[bytes], bytes]) -> None:
    [log] = (server.folder / "appendonlydir").glob("*.incr.aof")
    before = log.read_bytes()
    after = edit(before)
    assert after != before
    log.write_bytes(after)
