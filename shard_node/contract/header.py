"""Makes the engine's ``layout.h``: ``python -m shard_node.contract.header`` after a change of the contract.

Whatever both sides must agree on is written down in Python and generated for C, so that it cannot differ.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final

from shard_node import limits
from shard_node.contract import layout
from shard_node.contract.kinds import Effect, Kind
from shard_node.contract.outcomes import PARTICIPANT_REFUSALS, Outcome

HEADER: Final = Path(__file__).parent.parent / "engine" / "layout.h"

_TYPES: Final = {"B": "uint8_t", "H": "uint16_t", "I": "uint32_t", "q": "int64_t", "Q": "uint64_t"}
_FIELD: Final = re.compile(r"(\d*)([a-zA-Z])")
_ENUMS: Final[tuple[tuple[str, str, type[IntEnum]], ...]] = (
    ("code", "CODE", Outcome),
    ("kind", "KIND", Kind),
    ("effect", "EFFECT", Effect),
    ("account_state", "ACCOUNT", layout.AccountState),
    ("frame_kind", "FRAME", layout.FrameKind),
    ("record_kind", "RECORD", layout.RecordKind),
)
_CONSTANTS: Final = (
    ("LAYOUT_VERSION", layout.LAYOUT_VERSION),
    ("ID_BYTES", layout.ID_BYTES),
    ("ATTEMPT_BYTES", layout.ATTEMPT_BYTES),
    ("DECISION_BYTES", layout.DECISION_BYTES),
    ("SETTLEMENT_BYTES", layout.SETTLEMENT_BYTES),
    ("FINGERPRINT_BYTES", layout.FINGERPRINT_BYTES),
    ("NO_VERSION", layout.NO_VERSION),
    ("SYSTEM_SLOT", layout.SYSTEM_SLOT),
    ("NO_ACCOUNT", layout.NO_ACCOUNT),
    ("ALL_OWNERS", layout.ALL_OWNERS),
    ("MAX_ATTEMPTS", layout.MAX_ATTEMPTS),
    ("MAX_ID_AHEAD_MS", layout.MAX_ID_AHEAD_MS),
    # A bit a code.
    ("PARTICIPANT_REFUSALS", sum(1 << code for code in PARTICIPANT_REFUSALS)),
    ("MAX_BATCH", limits.MAX_BATCH),
    ("MAX_LEGS", limits.MAX_LEGS),
    ("MAX_ACCOUNT_ID_BYTES", limits.MAX_ACCOUNT_ID_CHARS),
    ("MAX_MINOR", limits.MAX_MINOR),
    ("NO_BALANCE", limits.NO_BALANCE),
)


def header() -> str:
    """The text of ``layout.h``."""
    return "\n".join([*_head(), *_constants(), *_enums(), *_structs(), "#endif", ""])


def _head() -> Iterator[str]:
    yield "/* Made by `python -m shard_node.contract.header` from the contract: change it there. */"
    yield "#ifndef TALLYSTICK_LAYOUT_H"
    yield "#define TALLYSTICK_LAYOUT_H"
    yield ""
    yield "#include <stdint.h>"
    yield ""


def _constants() -> Iterator[str]:
    for name, value in _CONSTANTS:
        text = f"INT64_C({value})" if value >= 1 << 31 else f"({value})" if value < 0 else f"{value}"
        yield f"#define {name} {text}"
    for flag in layout.BundleFlag:
        yield f"#define BUNDLE_{flag.name} {flag.value}"
    yield ""


def _enums() -> Iterator[str]:
    for name, prefix, values in _ENUMS:
        yield f"enum {name} {{"
        for value in values:
            yield f"    {prefix}_{value.name} = {value.value},"
        yield "};"
        yield ""


def _structs() -> Iterator[str]:
    for name, (packed, fields) in layout.STRUCTS.items():
        yield f"struct __attribute__((packed)) {name} {{"
        for field, (count, code) in zip(fields.split(), _FIELD.findall(packed.format), strict=True):
            yield f"    unsigned char {field}[{count}];" if code == "s" else f"    {_TYPES[code]} {field};"
        yield "};"
        yield f'_Static_assert(sizeof(struct {name}) == {struct.calcsize(packed.format)}, "{name}");'
        yield ""


if __name__ == "__main__":
    HEADER.write_text(header())
