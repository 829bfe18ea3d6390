"""The servers' wheel has the engine, ready to be loaded; the source distribution has its sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.servers


def build(kind: str, source: Path, target: Path, **environment: str) -> Path:
    """The distribution of a project's folder, built as pip does but without fetching what builds it."""
    program = f"import sys; from hatchling.build import build_{kind}; print(build_{kind}(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", program, str(target)],
        cwd=source,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return target / built.stdout.splitlines()[-1]


def installed(wheel: Path, folder: Path) -> Path:
    """A wheel's files, with their permissions, as an installer puts them."""
    with ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = Path(archive.extract(member, folder))
            path.chmod(member.external_attr >> 16)
    return folder


def asked_for_the_engine(site: Path) -> subprocess.CompletedProcess[str]:
    """What an installation says where the engine is, on a machine without a compiler."""
    return subprocess.run(
        [sys.executable, "-P", "-c", "from shard_node.engine.__main__ import *"],
        cwd=site,
        env={"PATH": "", "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The servers' wheel."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_wheel_is_of_this_kind_of_machine(wheel: Path) -> None:
    """It has one engine, none of its sources, and is not offered to machines that cannot load it."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("shard_node/engine/")]
    assert "shard_node/engine/tallystick.so" in names
    assert {Path(name).suffix for name in names} == {".py", ".so"}
    assert wheel.name.split("-")[-3:-1] == ["py3", "none"]
    assert "linux" in wheel.name.split("-")[-1]


def test_installed_engine_needs_no_compiler(wheel: Path, tmp_path: Path) -> None:
    """It is found where it was installed, and a server loads it."""
    site = installed(wheel, tmp_path / "site")
    told = asked_for_the_engine(site)
    assert told.returncode == 0, told.stderr
    engine = Path(told.stdout.strip())
    assert engine == site / "shard_node" / "engine" / "tallystick.so"
    # It ends by itself, for the second module is not there.
    options = ["--unixsocket", "socket", "--port", "0", "--loadmodule", str(engine), "--loadmodule", "/none"]
    loaded = subprocess.run(
        ["redis-server", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert f"Module 'tallystick' loaded from {engine}" in loaded.stdout


def test_installation_without_its_engine_says_so(wheel: Path, tmp_path: Path) -> None:
    """One sentence that says what to do, and no attempt to build what has no sources."""
    site = installed(wheel, tmp_path / "site")
    (site / "shard_node" / "engine" / "tallystick.so").unlink()
    told = asked_for_the_engine(site)
    assert told.returncode == 1
    assert told.stderr.startswith("engine: this installation lacks ")
    assert told.stderr.endswith("tallystick.so: install tallystick again\n")


def test_source_distribution_builds_the_wheel(tmp_path: Path) -> None:
    """It has every source of the engine, and no engine that was built before."""
    sdist = build("sdist", ROOT, tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (project,) = (tmp_path / "source").iterdir()
    sources = {path.name for path in (ROOT / "shard_node" / "engine").glob("*.[ch]")}
    assert {path.name for path in (project / "shard_node" / "engine").glob("*.[ch]")} == sources
    assert not list(project.rglob("*.so"))
    with ZipFile(build("wheel", project, tmp_path)) as archive:
        assert "shard_node/engine/tallystick.so" in archive.namelist()


def test_wheel_is_not_built_without_a_compiler(tmp_path: Path) -> None:
    """A wheel without an engine would only be found out when a shard is to start."""
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "tests", "bench"))
    with pytest.raises(AssertionError, match="no C compiler to build the shard engine with: install gcc"):
        build("wheel", source, tmp_path, PATH="")
