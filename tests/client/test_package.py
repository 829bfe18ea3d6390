"""The package as other services install it: alone, typed, and with what its docstring shows."""

import json
import re
import subprocess
import sys
import tomllib
import venv
from email import message_from_bytes
from email.message import Message
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

import tallystick
from deploy.local.launcher import LocalCluster

ROOT = Path(__file__).parents[2]


def _wheel(folder: Path, target: Path) -> Path:
    """The wheel of the project in a folder, built as pip does but without fetching what builds it."""
    program = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(target)]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return target / built.stdout.splitlines()[-1]


def _contents(wheel: Path) -> tuple[set[str], Message]:
    """The paths in a wheel, and its metadata."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        return set(names), message_from_bytes(archive.read(metadata))


def _names(requirements: list[str]) -> set[str]:
    """The distributions that are required without any extra."""
    return {re.split(r"[^\w.-]", text)[0] for text in requirements if "extra ==" not in text}


def _install(name: str, site: Path) -> None:
    """Makes a distribution of this environment visible in another one, file by file."""
    for file in distribution(name).files or ():
        # Not its programs, which are beside the packages' folder.
        if file.parts[0] != "..":
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).symlink_to(file.locate())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel."""
    return _wheel(ROOT / "proto", tmp_path_factory.mktemp("client-wheel"))


@pytest.fixture(scope="module")
def fresh_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the client's wheel, what that declares, what these need, and nothing else.

    Offline: what is declared comes from this environment, at the versions that are pinned.
    """
    folder = tmp_path_factory.mktemp("client-venv")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with ZipFile(wheel) as archive:
        archive.extractall(site)
    wanted, installed = _names(_contents(wheel)[1].get_all("Requires-Dist", [])), set[str]()
    while missing := wanted - installed:
        for name in missing:
            _install(name, site)
            installed.add(name)
            wanted |= _names(distribution(name).requires or [])
    return folder / "bin" / "python"


@pytest.mark.servers
def test_the_clients_wheel_is_the_package_and_its_licence(wheel: Path) -> None:
    """One top-level package, marked as typed, with the contract for other languages."""
    paths, metadata = _contents(wheel)
    about = f"tallystick_client-{metadata['Version']}.dist-info"
    assert {path.partition("/")[0] for path in paths} == {"tallystick", about}
    assert {
        "tallystick/py.typed",
        "tallystick/v1/wallet.proto",
        "tallystick/v1/wallet_pb2.pyi",
        f"{about}/licenses/LICENSE",
    } <= paths
    with ZipFile(wheel) as archive:
        assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


@pytest.mark.servers
def test_the_client_needs_few_packages(wheel: Path) -> None:
    """A service that moves money installs no servers, and no load rig unless it asks for one."""
    _, metadata = _contents(wheel)
    assert _names(metadata.get_all("Requires-Dist", [])) == {
        "googleapis-common-protos",
        "grpcio",
        "grpcio-status",
        "protobuf",
    }
    assert metadata.get_all("Provides-Extra") == ["locust"]


@pytest.mark.servers
def test_the_servers_wheel_leaves_the_client_out(tmp_path: Path) -> None:
    """Two distributions with the same files would overwrite, and uninstall, each other's."""
    paths, _ = _contents(_wheel(ROOT, tmp_path))
    packages = {path.partition("/")[0] for path in paths if ".dist-info/" not in path}
    assert packages == {"shard_node", "coordinator", "router", "bench", "deploy"}


@pytest.mark.servers
def test_the_servers_need_the_client_of_their_own_version(wheel: Path) -> None:
    """One commit, one version: the contract between them has no other."""
    _, metadata = _contents(wheel)
    servers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["Version"] == tallystick.__version__ == servers["version"]
    assert f"tallystick-client=={tallystick.__version__}" in servers["dependencies"]


@pytest.mark.cluster
def test_the_client_runs_with_only_what_it_declares(fresh_python: Path, cluster: LocalCluster) -> None:
    """Every module can be imported and money moved in an environment that has nothing else."""
    command = [str(fresh_python), "-I", str(Path(__file__).with_name("alone.py"))]
    done = subprocess.run(
        [*command, *cluster.router_addresses[:1]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert Path(answer.pop("from")).is_relative_to(fresh_python.parents[1])
    assert {"tallystick.sync", "tallystick.ledger_sync", "tallystick.v1.cluster_pb2_grpc"} < set(
        answer.pop("imported")
    )
    assert answer == {"paid": "COMMITTED", "refused": "INSUFFICIENT_FUNDS", "left": "7.50", "first": "OPEN"}


def test_docstring_uses_only_what_exists() -> None:
    """Every method the example calls is one of the client's."""
    called = set(re.findall(r"client\.(\w+)\(", tallystick.__doc__ or ""))
    assert called == {"open_account", "deposit", "transfer", "get_account"}
    assert all(hasattr(tallystick.Client, name) for name in called)


def test_both_clients_have_the_same_methods() -> None:
    """What asyncio code can do, other code can do."""

    def methods(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert methods(tallystick.SyncClient) == methods(tallystick.Client)
