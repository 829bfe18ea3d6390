"""The package as other services install it: alone, typed, and with what its docstring shows."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import tallystick


def test_importing_the_client_needs_no_other_part_of_the_project() -> None:
    """It loads neither the servers' packages nor their dependencies."""
    program = "import sys, tallystick; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    foreign = {
        "shard_node",
        "coordinator",
        "router",
        "deploy",
        "bench",
        "redis",
        "kazoo",
        "uvloop",
        "structlog",
    }
    assert foreign.isdisjoint(done.stdout.split())
    assert "tallystick" in done.stdout.split()


def test_package_is_marked_as_typed() -> None:
    """Type checkers read the annotations of what they find installed."""
    assert (Path(tallystick.__file__).parent / "py.typed").exists()


def test_version_is_the_distributions() -> None:
    """The package says which release it is, as its metadata does."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert tallystick.__version__ == project["project"]["version"]


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
