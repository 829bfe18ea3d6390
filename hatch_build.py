"""Puts the shard engine into the wheel. Hatchling runs this; it is no part of what is installed."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_ENGINE = Path("shard_node", "engine")


class EngineHook(BuildHookInterface[Any]):
    """Builds the engine, which ties the wheel to the machine's kind, though to no version of Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the engine to a wheel; an editable installation builds its own when somebody asks for it."""
        if version == "editable":
            return
        # From the file: what is built is not installed yet.
        spec = importlib.util.spec_from_file_location("loading", Path(self.root) / _ENGINE / "loading.py")
        assert spec is not None  # noqa: S101
        assert spec.loader is not None  # noqa: S101
        loading = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loading)
        engine: Path = loading.engine_path()
        build_data["force_include"][str(engine)] = str(_ENGINE / loading.INSTALLED.name)
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
