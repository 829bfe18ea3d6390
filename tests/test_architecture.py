"""Who may import whom, how long a module may be, and that everything public says what it is for.

Imports are read from the source, those for the type checker alone and those inside functions included. Each
rule is also run on a small tree that breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path(__file__).parents[1]
_PRODUCT: Final = ("proto", "shard_node", "coordinator", "router", "deploy", "bench")

# What every room may use.
_GROUND: Final = {
    "tallystick",
    "shard_node.errors",
    "shard_node.limits",
    "shard_node.money",
    "shard_node.process",
    "shard_node.redis_files",
    "deploy.errors",
    "deploy.moments",
    "bench.errors",
    "bench.settings",
}
# The rooms from the ground up, each with the rooms that it may use beside the ground; they stand above it.
# A room is a folder, entered by what its `__init__.py` names, or a single module.
ROOMS: Final[Mapping[str, str]] = {
    "tallystick": "",
    "shard_node.errors": "",
    "shard_node.limits": "",
    "shard_node.money": "",
    "shard_node.process": "",
    "shard_node.redis_files": "",
    "shard_node.logs": "",
    "shard_node.cluster": "",
    "shard_node.contract": "",
    "shard_node.engine": "",
    "shard_node.serving": "shard_node.contract",
    "shard_node.client": "shard_node.cluster shard_node.contract",
    "shard_node.agent": "shard_node.client shard_node.cluster shard_node.engine shard_node.logs",
    "shard_node.ledger.store": "shard_node.cluster shard_node.contract",
    "shard_node.ledger.store.migrations": "shard_node.ledger.store",
    "shard_node.ledger.questions": """
        shard_node.client shard_node.cluster shard_node.contract shard_node.ledger.store""",
    "shard_node.ledger.proof": """
        shard_node.client shard_node.cluster shard_node.contract shard_node.ledger.store
        shard_node.ledger.questions""",
    "shard_node.ledger": "shard_node.ledger.store shard_node.ledger.store.migrations",
    "shard_node.archiver": """
        shard_node.client shard_node.cluster shard_node.ledger.store shard_node.ledger.store.migrations""",
    "shard_node": "shard_node.agent",
    "coordinator": "shard_node.client shard_node.cluster shard_node.contract shard_node.serving",
    "router.requests": "shard_node.cluster shard_node.contract shard_node.ledger.questions",
    "router.execution": """
        shard_node.client shard_node.cluster shard_node.contract shard_node.serving
        shard_node.ledger.store shard_node.ledger.questions router.requests""",
    "router.services": """
        shard_node.client shard_node.cluster shard_node.contract shard_node.serving
        shard_node.ledger.store shard_node.ledger.questions shard_node.ledger.proof router.requests
        router.execution""",
    "router": """
        shard_node.client shard_node.cluster shard_node.serving shard_node.ledger.store
        shard_node.ledger.questions coordinator router.requests router.execution router.services""",
    "deploy.errors": "",
    "deploy.moments": "",
    "deploy.quiet_logs": "",
    "deploy.local": """
        shard_node.agent shard_node.client shard_node.cluster shard_node.ledger.store
        shard_node.ledger.store.migrations coordinator deploy.quiet_logs""",
    "deploy.terminal": "deploy.local",
    "deploy.auditor": """
        shard_node.client shard_node.cluster shard_node.ledger.store shard_node.ledger.store.migrations
        shard_node.ledger.questions shard_node.ledger.proof deploy.quiet_logs deploy.terminal""",
    "deploy.importing": "",
    "bench.errors": "",
    "bench.settings": "",
    "bench.transfers": "shard_node.cluster",
    "bench.command": "deploy.terminal",
    "bench.stand_in": "bench.transfers",
    "bench.cluster": "deploy.local deploy.terminal bench.transfers bench.command",
    "bench.load": "deploy.local bench.transfers bench.cluster",
    "bench.reporting": "deploy.terminal bench.command bench.cluster bench.load",
    "bench.scaling": "deploy.terminal bench.command bench.cluster bench.reporting",
    "bench.postgres": """
        shard_node.cluster deploy.local deploy.terminal bench.transfers bench.command bench.cluster
        bench.load bench.reporting""",
    "bench.locust_rig": """
        shard_node.cluster deploy.local deploy.terminal bench.transfers bench.stand_in bench.command
        bench.cluster bench.reporting bench.scaling""",
    "bench.load_command": "deploy.local bench.command bench.load bench.reporting",
    "deploy.cli": """
        shard_node.cluster shard_node.contract shard_node.ledger.proof deploy.local deploy.terminal
        deploy.auditor deploy.importing bench.load_command""",
    "deploy.demo": """
        shard_node.cluster shard_node.contract shard_node.ledger.store shard_node.ledger.proof
        deploy.local deploy.terminal deploy.auditor deploy.importing deploy.cli""",
    "deploy": "",
    # A module for each measuring command.
    "bench": """
        shard_node.agent shard_node.client shard_node.cluster shard_node.contract shard_node.serving
        shard_node.ledger.store shard_node.ledger.store.migrations shard_node.ledger.questions
        shard_node.ledger.proof shard_node.archiver deploy.local deploy.terminal deploy.cli
        bench.transfers bench.stand_in bench.command bench.cluster bench.load bench.reporting""",
}
# All modules of what other services install are public.
_WITHOUT_FACE: Final = {"tallystick"}
# Parts of a room that stand elsewhere, where Locust looks for them.
_ELSEWHERE: Final = {
    "bench.locustfile": "bench.locust_rig",
    "bench.plugins.locust_plugins": "bench.locust_rig",
}

MAX_LINES: Final = 600
# Tests from before the rule, which may only become shorter: lines that each may have.
LONG_TESTS: Final = {"tests/router/test_ledger_service.py": 655, "tests/ledger/test_audit.py": 633}


@dataclass(frozen=True, slots=True)
class Import:
    """``module`` is what is loaded; ``name`` what is taken from it, None where the module itself is meant."""

    line: int
    module: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Module:
    """A module as its source has it. ``path`` is relative to the root."""

    name: str
    path: Path
    tree: ast.Module
    imports: list[Import] = field(default_factory=list)

    @property
    def is_package(self) -> bool:
        """Whether it is a folder's `__init__.py`."""
        return self.path.name == "__init__.py"

    def face(self) -> list[str]:
        """What a folder lets others use: the names in its `__all__`."""
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names)):
                    return [str(name.value) for name in names if isinstance(name, ast.Constant)]
        return []


def read(root: Path, folders: Iterable[str] = _PRODUCT) -> dict[str, Module]:
    """The modules in these folders by name, but for generated ones. `proto` is a place on the path."""
    modules: dict[str, Module] = {}
    for path in (path for folder in folders for path in sorted((root / folder).rglob("*.py"))):
        if "_pb2" not in path.name:
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[parts[0] == "proto" : -1 if parts[-1] == "__init__" else None])
            modules[name] = Module(name, path.relative_to(root), ast.parse(path.read_text()))
    for module in modules.values():
        module.imports.extend(_imports(module, modules))
    return modules


def _imports(module: Module, modules: Mapping[str, Module]) -> Iterator[Import]:
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=names):
                yield from (Import(node.lineno, one.name, None) for one in names if one.name in modules)
            case ast.ImportFrom(names=names):
                source = _source(module, node)
                for one in names:
                    if (inner := f"{source}.{one.name}") in modules:
                        yield Import(node.lineno, inner, None)
                    elif source in modules:
                        yield Import(node.lineno, source, one.name)


def _source(module: Module, node: ast.ImportFrom) -> str:
    """The module that a statement names, also where it counts from its own folder."""
    package = module.name.split(".") + ["__init__"] * module.is_package
    return ".".join(
        [*(package[: -node.level] if node.level else []), *([node.module] if node.module else [])]
    )


def room_of(name: str, rooms: Iterable[str]) -> str | None:
    """The innermost room that a module is in."""
    name = _ELSEWHERE.get(name, name)
    return max((room for room in rooms if f"{name}.".startswith(f"{room}.")), key=len, default=None)


def upward(modules: Mapping[str, Module], rooms: Mapping[str, str]) -> Iterator[str]:
    """Modules without a room, and imports that the table does not allow."""
    usable, ground = dict[str, set[str]](), set[str]()
    for room, others in rooms.items():
        usable[room] = {room, *others.split(), *ground}
        ground |= {room} & _GROUND
    for module in modules.values():
        room_here = room_of(module.name, rooms)
        if room_here is None:
            yield f"{module.path}:1: {module.name} is in no room: put it into one, or add a room to ROOMS"
            continue
        for one in module.imports:
            other = room_of(one.module, rooms)
            if other is not None and other not in usable[room_here]:
                yield (
                    f"{module.path}:{one.line}: {room_here} imports {one.module}, and ROOMS does not let it "
                    f"use {other}: move what is needed into a room that both may use"
                )


def misordered(rooms: Mapping[str, str]) -> Iterator[str]:
    """Rooms of the table that may use one that does not stand above them."""
    above: set[str] = set()
    for room, others in rooms.items():
        for other in others.split():
            if other not in above:
                yield f"ROOMS: {room} may use {other}, which does not stand above it: imports point down"
        above.add(room)


def past_faces(modules: Mapping[str, Module], rooms: Mapping[str, str]) -> Iterator[str]:
    """Imports from another room that its `__init__.py` does not name."""
    for module in modules.values():
        for one in module.imports:
            room = room_of(one.module, rooms)
            if room is None or room in {room_of(module.name, rooms), *_WITHOUT_FACE}:
                continue
            if room in modules and not _may_take(one, modules[room]):
                name = one.name or one.module.rpartition(".")[2]
                yield (
                    f"{module.path}:{one.line}: takes {name} from {one.module}, past the face of {room}: "
                    f"name it in {modules[room].path} and write `from {room} import {name}`"
                )


def _may_take(one: Import, room: Module) -> bool:
    if not room.is_package:
        return not (one.name or "").startswith("_")
    if one.module == room.name:
        return one.name is None or one.name in room.face()
    return one.name is None and one.module.removeprefix(f"{room.name}.") in room.face()


def unused_faces(modules: Mapping[str, Module], rooms: Mapping[str, str]) -> Iterator[str]:
    """Names in a face that no other room uses."""
    used = {
        (room_of(one.module, rooms), one.name or one.module.rpartition(".")[2])
        for module in modules.values()
        for one in module.imports
        if room_of(module.name, rooms) != room_of(one.module, rooms)
    }
    for room in rooms:
        if room in modules and modules[room].is_package and room not in _WITHOUT_FACE:
            for name in modules[room].face():
                if (room, name) not in used:
                    yield f"{modules[room].path}:1: no other room uses {name}: the face need not name it"


def circles(modules: Mapping[str, Module]) -> Iterator[str]:
    """Modules that import each other, directly or by others: one circle for each import that closes one."""
    done: set[str] = set()
    way: list[str] = []

    def follow(name: str) -> Iterator[str]:
        way.append(name)
        for one in modules[name].imports:
            if one.module in way:
                circle = [*way[way.index(one.module) :], one.module]
                yield (
                    f"{modules[name].path}:{one.line}: a circle of imports, {' -> '.join(circle)}: move what "
                    "two of them share into a module of its own"
                )
            elif one.module not in done:
                yield from follow(one.module)
        done.add(way.pop())

    for name in modules:
        if name not in done:
            yield from follow(name)


def too_long(root: Path, exceptions: Mapping[str, int]) -> Iterator[str]:
    """Files that people write and that have more lines than they may; exceptions that are none any more."""
    found = [path for folder in (*_PRODUCT, "tests") for path in sorted((root / folder).rglob("*.py"))]
    found += [path for end in ("c", "h") for path in sorted((root / "shard_node/engine").rglob(f"*.{end}"))]
    lengths = {
        str(path.relative_to(root)): len(path.read_text().splitlines())
        for path in found
        if "_pb2" not in path.name
    }
    for name, lines in lengths.items():
        bound = exceptions.get(name, MAX_LINES)
        if lines > bound:
            yield f"{name}:{lines}: {lines} lines, and {bound} are allowed: split it by what it is for"
    for name in exceptions:
        if lengths.get(name, 0) <= MAX_LINES:
            yield f"{name}:1: has no more than {MAX_LINES} lines: take it out of LONG_TESTS"


def undocumented(modules: Mapping[str, Module]) -> Iterator[str]:
    """Public modules, classes, functions and methods without a docstring."""
    for module in modules.values():
        if ast.get_docstring(module.tree) is None:
            yield f"{module.path}:1: the module has no docstring: say what it is for"
        yield from _undocumented(module.path, module.tree)


def _undocumented(path: Path, inside: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in inside.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") or any(_is_exempt(one) for one in node.decorator_list):
            continue
        if ast.get_docstring(node) is None:
            yield f"{path}:{node.lineno}: {node.name} has no docstring: say what it does"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(path, node)


def _is_exempt(decorator: ast.expr) -> bool:
    """The variants of an overloaded function; what sets a property that is documented."""
    match decorator:
        case ast.Name(id="overload" | "override") | ast.Attribute(attr="setter"):
            return True
    return False


def _require_none(findings: list[str]) -> None:
    """Fails with all of the findings, a line each."""
    if findings:
        pytest.fail("\n".join(findings), pytrace=False)


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    """All modules of the product."""
    return read(_ROOT)


def test_imports_point_down(modules: dict[str, Module]) -> None:
    """A room imports only rooms that stand above it in the table, and every module is in a room."""
    _require_none([*misordered(ROOMS), *upward(modules, ROOMS)])


def test_rooms_are_entered_by_their_faces(modules: dict[str, Module]) -> None:
    """Another room's names come from its `__init__.py`, which names nothing else."""
    _require_none([*past_faces(modules, ROOMS), *unused_faces(modules, ROOMS)])


def test_no_modules_import_each_other(modules: dict[str, Module]) -> None:
    """There is no circle of imports, not even for the type checker."""
    _require_none([*circles(modules)])


def test_modules_are_short() -> None:
    """Nothing that people write has more than 600 lines, some old tests aside."""
    _require_none([*too_long(_ROOT, LONG_TESTS)])


def test_everything_public_is_documented(modules: dict[str, Module]) -> None:
    """Each public module, class, function and method has a docstring."""
    _require_none([*undocumented(modules)])


# A small tree of two rooms, in which nothing is wrong; `low` stands above `high`.
_ROOMS: Final = {"bench.low": "", "bench.high": "bench.low"}
_SOUND: Final = {
    "bench/low/__init__.py": '"""Low."""\nfrom bench.low.stone import Stone\n__all__ = ["Stone"]\n',
    "bench/low/stone.py": '"""Stones."""\nclass Stone:\n    """One."""\n',
    "bench/low/sand.py": '"""Sand."""\nGRAINS = 3\n',
    "bench/high/__init__.py": '"""High."""\n',
    "bench/high/wall.py": '"""Walls."""\nfrom bench.low import Stone\nWALL = [Stone()]\n',
}


def _findings(root: Path, changes: Mapping[str, str]) -> list[str]:
    """What all rules say of the sound tree with these files added or in place of others."""
    for name, text in {**_SOUND, **changes}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    found = read(root, ["bench"])
    return [
        *upward(found, _ROOMS),
        *past_faces(found, _ROOMS),
        *unused_faces(found, _ROOMS),
        *circles(found),
        *too_long(root, {}),
        *undocumented(found),
    ]


def test_sound_tree_has_no_findings(tmp_path: Path) -> None:
    """The tree that the faults are planted in breaks no rule by itself."""
    assert _findings(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        (
            "bench/low/sand.py",
            '"""Sand."""\nfrom bench import high\n',
            "bench/low/sand.py:2: bench.low imports bench.high, and ROOMS does not let it use bench.high",
        ),
        (
            "bench/low/sand.py",
            '"""Sand."""\nfrom .. import high\n',
            "bench/low/sand.py:2: bench.low imports bench.high, and",
        ),
        ("bench/alone.py", '"""Alone."""\n', "bench/alone.py:1: bench.alone is in no room"),
        (
            "bench/high/roof.py",
            '"""Roofs."""\ndef roof() -> None:\n    """A roof."""\n    from bench.low.sand import GRAINS\n',
            "bench/high/roof.py:4: takes GRAINS from bench.low.sand, past the face of bench.low",
        ),
        (
            "bench/high/roof.py",
            '"""Roofs."""\nfrom bench.low import sand\n',
            "bench/high/roof.py:2: takes sand from bench.low.sand, past the face of bench.low",
        ),
        (
            "bench/high/wall.py",
            '"""Walls."""\n',
            "bench/low/__init__.py:1: no other room uses Stone",
        ),
        (
            "bench/low/stone.py",
            '"""Stones."""\nif TYPE_CHECKING:\n    from bench.low import Stone\n',
            "bench/low/stone.py:3: a circle of imports, bench.low -> bench.low.stone -> bench.low",
        ),
        (
            "shard_node/engine/wall.c",
            "\n" * 601,
            "shard_node/engine/wall.c:601: 601 lines, and 600 are allowed",
        ),
        ("bench/low/sand.py", "GRAINS = 3\n", "bench/low/sand.py:1: the module has no docstring"),
        (
            "bench/low/sand.py",
            '"""Sand."""\nclass Grain:\n    """One."""\n    def fall(self) -> None: ...\n',
            "bench/low/sand.py:4: fall has no docstring",
        ),
    ],
)
def test_each_fault_is_found(name: str, text: str, finding: str, tmp_path: Path) -> None:
    """One fault in the sound tree is one finding, which says where it is."""
    (found,) = _findings(tmp_path, {name: text})
    assert found.startswith(finding)


def test_ground_is_not_for_what_stands_above_it(tmp_path: Path) -> None:
    """A room of the ground serves those below it in the table, not those above."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/low.py").write_text("from bench.errors import BenchError\n")
    (tmp_path / "bench/errors.py").write_text("")
    found = read(tmp_path, ["bench"])
    assert len([*upward(found, {"bench.low": "", "bench.errors": ""})]) == 1
    assert [*upward(found, {"bench.errors": "", "bench.low": ""})] == []


def test_table_that_points_up_is_found() -> None:
    """A room may not be let to use one that stands below it."""
    assert [*misordered({"bench.low": "bench.high", "bench.high": ""})] == [
        "ROOMS: bench.low may use bench.high, which does not stand above it: imports point down"
    ]


def test_list_of_long_tests_only_shrinks(tmp_path: Path) -> None:
    """A long test may not grow, and is taken off the list once it is short."""
    test = tmp_path / "tests/test_much.py"
    test.parent.mkdir()
    test.write_text("\n" * 620)
    assert [*too_long(tmp_path, {"tests/test_much.py": 620})] == []
    assert [*too_long(tmp_path, {"tests/test_much.py": 619})] == [
        "tests/test_much.py:620: 620 lines, and 619 are allowed: split it by what it is for"
    ]
    test.write_text("")
    (finding,) = too_long(tmp_path, {"tests/test_much.py": 620})
    assert finding.endswith("take it out of LONG_TESTS")
