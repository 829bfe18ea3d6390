"""A client that has the .proto files and nothing else can do all there is to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.launcher import LocalCluster
from tests.router.contract import Client, compile_protos

pytestmark = pytest.mark.cluster

PROGRAM = Path(__file__).with_name("foreign_client.py")


def test_fresh_stubs_do_everything(
    tmp_path: Path, cluster: LocalCluster, wallet: Client, ledger: Client, operators: Client
) -> None:
    """Stubs made anew serve a program of its own for every RPC of all services."""
    compile_protos(f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    # Packages of their own, so that an installed tallystick does not come first.
    for package in ("tallystick", "tallystick/v1"):
        (tmp_path / package / "__init__.py").touch()
    program = shutil.copy(PROGRAM, tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, program, cluster.router_addresses[0]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    called = json.loads(done.stdout)
    assert set(called["WalletService"]) == set(wallet.methods)
    assert set(called["LedgerService"]) == set(ledger.methods)
    assert set(called["ClusterService"]) == set(operators.methods)
