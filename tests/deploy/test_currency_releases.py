"""A cluster that meets other releases of the ISO 4217 package than the one its currencies began with."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.local.launcher import ClusterSpec, LocalCluster
from tallystick import AccountNotFound, InvalidArgument, NewAccount, Outcome, SyncClient, SyncLedgerClient

pytestmark = pytest.mark.servers

# What each release knows: the second has dropped BGN and changed HUF, and CHF is new.
FIRST = {"EUR": 2, "BGN": 2, "HUF": 2}
SECOND = {"EUR": 2, "HUF": 0, "CHF": 2}
WAIT_SECONDS = 30.0


def install(folder: Path, release: Mapping[str, int], patch: pytest.MonkeyPatch) -> None:
    """A package iso4217 that has these currencies, for every process that starts from now on."""
    folder.mkdir()
    (folder / "iso4217.py").write_text(
        f"RELEASE = {dict(release)}\n\n\nclass Currency:\n    def __init__(self, code):\n"
        "        if code not in RELEASE:\n            raise ValueError(code)\n"
        "        self.exponent = RELEASE[code]\n"
    )
    patch.setenv("PYTHONPATH", str(folder))


def cli(*arguments: str) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def await_archived(cluster: LocalCluster, account_id: str, version: int) -> None:
    """Waits until the ledger has the account's entry of that version."""
    deadline = time.monotonic() + WAIT_SECONDS
    with SyncLedgerClient(cluster.router_addresses) as ledger:
        while True:
            with suppress(AccountNotFound):
                if ledger.balance_at(account_id).version >= version:
                    return
            assert time.monotonic() < deadline, f"{account_id} is not archived"
            time.sleep(0.05)


def test_money_outlives_the_release_that_it_came_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the next release dropped goes on in every way; what it changed stays as it was; both are said."""
    data = tmp_path / "data"
    install(tmp_path / "first", FIRST, monkeypatch)
    with LocalCluster(data, ClusterSpec(shards=1)) as cluster:
        with SyncClient(cluster.router_addresses) as client:
            for name, currency in (("ann", "BGN"), ("bob", "BGN"), ("hun", "HUF")):
                client.open_account(name, currency)
            client.deposit("ann", "1237.50", "BGN")
            client.deposit("hun", "5.25", "HUF")
            with pytest.raises(InvalidArgument, match="no account was ever opened in EUR, so none can pay"):
                client.deposit("ann", "1", "EUR")
        await_archived(cluster, "hun", 1)

    install(tmp_path / "second", SECOND, monkeypatch)
    with LocalCluster(data) as cluster, SyncClient(cluster.router_addresses) as client:
        assert client.get_account("ann").available == Decimal("1237.50")
        moved = client.transfer("ann", "bob", "0.50", "BGN", return_balances=True)
        assert (moved.from_available, moved.to_available) == (Decimal("1237.00"), Decimal("0.50"))
        new = client.open_accounts([NewAccount("cid", "BGN", "-1.00"), NewAccount("ida", "HUF")])
        assert [made.account is not None for made in new] == [True, True]
        assert client.deposit("cid", "10", "BGN").to_available == Decimal("10.00")
        assert client.hold("cid", "2.25", "BGN").available == Decimal("7.75")
        assert client.transfer("hun", "ida", "0.25", "HUF").outcome is Outcome.COMMITTED
        assert client.get_account("hun").available == Decimal("5.00")
        # New to the cluster: of the release of today.
        client.open_account("chi", "CHF")
        await_archived(cluster, "cid", 2)
        await_archived(cluster, "chi", 0)
        _check_views(data)
        for name in ("router-0", "coordinator-0", "archiver-0", "shard-0"):
            lines = map(json.loads, cluster.log(name).read_text().splitlines())
            told = [line["currency"] for line in lines if "differs from a currency's" in line["event"]]
            assert sorted(told) == ["BGN", "HUF"], name

    # The ledger alone: no cluster, no ZooKeeper, and a package that has the currencies no more.
    shutil.copy(data / "ledger.db", tmp_path / "alone.db")
    document = json.loads(cli("replay", "--json", "--ledger", f"sqlite:///{tmp_path / 'alone.db'}"))
    balances = {account["account_id"]: account["balance"] for account in document["accounts"]}
    assert balances["ann"] == "1237.00"
    assert balances["ida"] == "0.25"
    assert document["currencies"]["BGN"]["customers"] == "1247.50"
    assert document["currencies"]["HUF"]["deposits"] == "5.25"


def _check_views(data: Path) -> None:
    """Every way to look at the money shows it as it is."""
    on = ("--data", str(data))
    history = json.loads(cli("history", "ann", "--json", *on))["entries"]
    assert [entry["balance"] for entry in history] == ["1237.00", "1237.50", "0.00"]
    assert json.loads(cli("statement", "ann", "--json", *on))["closing"]["balance"] == "1237.00"
    verified = {
        one["currency"]: one["customers"] for one in json.loads(cli("verify", "--json", *on))["currencies"]
    }
    assert verified == {"BGN": "1247.50", "CHF": "0.00", "HUF": "5.25"}
    audited = json.loads(cli("audit", "--json", *on))
    assert audited["consistent"] is True
    assert audited["currencies"]["BGN"]["deposits"] == "1247.50"
    assert "1247.50" in cli("audit", *on)
    assert json.loads(cli("check", "--json", *on))["consistent"] is True
