"""Messages of the fuzzer: one that the product has no call for, and how all of them are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from shard_node.contract.bundles import Bundle, split_decisions
from shard_node.contract.calls import Attempt, Decide, Finish, Post, Prepare, SettleCommits
from tests.coordinator.fuzz_payloads import SHOWN

if TYPE_CHECKING:
    from shard_node.contract.journal_calls import LegRef


@dataclass(frozen=True, slots=True)
class Look:
    """What Shard.commits reads, as a message."""

    FUNCTION: ClassVar[str] = "look"
    names: Sequence[bytes]


def described(call: Any) -> str:
    """A call's name and the ends of the ids that it is about."""
    match call:
        case Post():
            return f"Post {_ids(call.bundle)}"
        case Prepare():
            return f"Prepare {_attempts(call.attempts)}"
        case Decide():
            return f"Decide {_attempts(call.attempts)} {[v.hex() for v in call.verdicts]}"
        case Finish():
            ends = zip(call.attempt_ids, call.verdicts, strict=True)
            return "Finish " + ", ".join(f"{name[SHOWN].hex()} {verdicts.hex()}" for name, verdicts in ends)
        case SettleCommits():
            return f"Settle {' '.join(name.hex() for name in call.commits)}"
        case Look():
            return f"Look {' '.join(name.hex() for name in call.names)}"
        case _:
            return _of_journals(call)


def _of_journals(call: Any) -> str:
    if hasattr(call, "legs"):
        refs: Sequence[LegRef] = call.legs
        keys = [ref.key for ref in refs]
    else:
        keys = call.batch.keys if hasattr(call, "batch") else call.keys
    shown = [key[SHOWN].hex() + (f".{key[24]}" if len(key) > 24 else "") for key in keys]
    verdicts = getattr(call, "verdicts", "")
    return f"{type(call).__name__} {' '.join(shown)} {verdicts}".rstrip()


def _attempts(attempts: Sequence[Attempt]) -> str:
    return ", ".join(f"{one.attempt_id[SHOWN].hex()} of {_ids(one.bundle)}" for one in attempts)


def _ids(bundle: Bundle) -> str:
    return " ".join(decision[SHOWN].hex() for decision in split_decisions(bundle.decisions))
