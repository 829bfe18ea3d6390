"""The numbers in the Lua library are those of the Python enums."""

from __future__ import annotations

import re

from shard_node.contract.bundles import DECISION_BYTES
from shard_node.contract.calls import ATTEMPT_BYTES, COMMIT_BYTES
from shard_node.contract.journals import Effect
from shard_node.contract.outcomes import PAYEE, Outcome
from shard_node.contract.records import AccountState
from shard_node.contract.transfers import BODY_HEAD, Kind
from shard_node.library import source
from shard_node.limits import MAX_MINOR, NO_BALANCE

# Constants that no enum has.
_OTHERS = {
    "MAX_MINOR": MAX_MINOR,
    "NO_BALANCE": NO_BALANCE,
    "PAYEE": PAYEE,
    # Python counts from 0, and the kind stands before the two lengths at the end of the head.
    "KIND_AT": BODY_HEAD.size - 2,
    "DECISION": DECISION_BYTES,
    "ATTEMPT": ATTEMPT_BYTES,
    "COMMIT": COMMIT_BYTES,
}
# What the library alone knows.
_ITS_OWN = {"ATTEMPT_HEAD", "CHUNK", "BIG", "LIMITED", "MAX_FORMATS", "NAMES_A_CALL"}


def _numbers() -> dict[str, int]:
    """Every ``local NAME = number``, also several in one line; a name twice must mean the same."""
    found: dict[str, int] = {}
    for names, values in re.findall(r"^local ([A-Z_, ]+) = ([\d, ]+)$", source(), re.MULTILINE):
        for name, value in zip(names.split(", "), values.split(", "), strict=True):
            assert found.setdefault(name, int(value)) == int(value), name
    return found


def test_numbers_are_those_of_the_enums() -> None:
    """Each constant of the library is a member of an enum, with the same number."""
    members = {member.name: int(member) for enum in (Outcome, Kind, Effect, AccountState) for member in enum}
    # Kind and Effect share names, of which the library means the effect; none of its states is a kind's OPEN.
    members |= {effect.name: int(effect) for effect in Effect}
    members |= {state.name: int(state) for state in AccountState}
    numbers = _numbers()
    assert len(numbers) > 30
    known = members | _OTHERS
    assert {name: known.get(name) for name in numbers if name not in _ITS_OWN} == {
        name: value for name, value in numbers.items() if name not in _ITS_OWN
    }


def test_the_ledgers_kinds() -> None:
    """The kind that the library writes into a hold's end, as a character; effects that it leaves unnamed."""
    assert f"local EXPIRY = '\\{Kind.EXPIRY}'" in source()
    # Whatever is not one of the others is taken for a debit.
    assert {effect for effect in Effect if effect.name not in _numbers()} == {Effect.DEBIT}
