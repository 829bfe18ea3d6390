"""Building the engine and finding it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shard_node.engine import EngineMissingError, engine_path, loading


def test_engine_is_built_once_for_the_same_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first to ask builds it; it is built anew when a source has changed."""
    sources = tmp_path / "engine"
    sources.mkdir()
    (sources / "one.c").write_text("int one(void);\nint one(void) { return 1; }\n")
    monkeypatch.delenv("TALLYSTICK_ENGINE", raising=False)
    monkeypatch.setattr(loading, "SOURCES", sources)
    monkeypatch.setattr(loading, "BUILD", tmp_path / "build")
    built = engine_path()
    first = built.stat().st_mtime_ns
    assert engine_path().stat().st_mtime_ns == first
    (sources / "two.h").write_text("\n")
    assert engine_path().stat().st_mtime_ns > first


def test_engine_that_does_not_compile_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The compiler's words come with the error, and no half-built engine is left."""
    (tmp_path / "bad.c").write_text("int one(void) { return }\n")
    monkeypatch.delenv("TALLYSTICK_ENGINE", raising=False)
    monkeypatch.setattr(loading, "SOURCES", tmp_path)
    monkeypatch.setattr(loading, "BUILD", tmp_path / "build")
    with pytest.raises(EngineMissingError, match="does not compile") as raised:
        engine_path()
    assert "bad.c" in str(raised.value)
    assert not list((tmp_path / "build").glob("*.so"))


def test_engine_built_elsewhere_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TALLYSTICK_ENGINE names it; a name of no file is an error, not a reason to build."""
    elsewhere = tmp_path / "tallystick.so"
    monkeypatch.setenv("TALLYSTICK_ENGINE", str(elsewhere))
    with pytest.raises(EngineMissingError, match="no such file"):
        engine_path()
    elsewhere.write_bytes(b"")
    assert engine_path() == elsewhere


def test_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a compiler and without a build there is one sentence, not a stack."""
    monkeypatch.setattr(loading, "BUILD", tmp_path / "build")
    monkeypatch.delenv("TALLYSTICK_ENGINE", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EngineMissingError, match="install gcc"):
        engine_path()
