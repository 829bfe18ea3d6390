"""UUIDv7 ids: RFC 9562's layout, and ids that only grow."""

import itertools
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable

import pytest

from tallystick.ids import TransactionIds, new_transaction_id

NOON_NS = 1_750_000_000_123_456_789
ONE_MS = 1_000_000


def ids_at(clock_ns: Callable[[], int], first_counter: int = 0) -> TransactionIds:
    """Ids whose counter starts at a known number and whose random bits are all ones."""
    return TransactionIds(
        clock_ns, lambda size: first_counter.to_bytes(2, "big") if size == 2 else b"\xff" * size
    )


def counter_of(text: str) -> int:
    """The 12 bits after the version."""
    return uuid.UUID(text).int >> 64 & 0xFFF


def ms_of(text: str) -> int:
    """The 48 bits of time."""
    return uuid.UUID(text).int >> 80


def test_layout_is_that_of_rfc_9562() -> None:
    """Time, version 7, counter, variant 10 and random bits stand where the RFC puts them."""
    made = uuid.UUID(ids_at(lambda: NOON_NS, 5).new())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == NOON_NS // ONE_MS
    assert made.int >> 64 & 0xFFF == 5
    assert made.int & ((1 << 62) - 1) == (1 << 62) - 1


def test_variant_holds_for_any_random_bits() -> None:
    """Whatever the random bytes, the variant's two bits are 1 and 0."""
    for value in range(256):
        made = TransactionIds(lambda: NOON_NS, lambda size, value=value: bytes([value]) * size)  # type: ignore[misc]
        assert uuid.UUID(made.new()).variant == uuid.RFC_4122


def test_text_is_canonical() -> None:
    """The text is what uuid.UUID would print, so that it equals its echo."""
    text = new_transaction_id()
    assert text == str(uuid.UUID(text))


def test_ids_grow_while_the_clock_stands_still() -> None:
    """Ten thousand ids of one millisecond are all different and in order."""
    ids = TransactionIds(lambda: NOON_NS)
    made = [ids.new() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_ids_grow_when_the_clock_steps_back() -> None:
    """A clock set back an hour does not bring an id below the last one."""
    ticks = itertools.chain([NOON_NS], itertools.repeat(NOON_NS - 3600 * 1000 * ONE_MS))
    ids = ids_at(lambda: next(ticks))
    made = [ids.new() for _ in range(100)]
    assert made == sorted(set(made))
    assert ms_of(made[-1]) == NOON_NS // ONE_MS


def test_full_counter_borrows_one_millisecond() -> None:
    """After a counter overflow the ids run one millisecond ahead, not one more with each id."""
    ids = ids_at(lambda: NOON_NS, 2047)
    made = [ids.new() for _ in range(4096 - 2047 + 3)]
    assert counter_of(made[4096 - 2048]) == 4095
    assert [ms_of(text) - NOON_NS // ONE_MS for text in made[-3:]] == [1, 1, 1]
    assert made == sorted(set(made))


def test_counter_starts_in_its_lower_half() -> None:
    """Whatever is drawn, a millisecond has room for at least 2048 ids."""
    assert counter_of(ids_at(lambda: NOON_NS, 0xFFFF).new()) < 2048


def test_threads_share_one_sequence() -> None:
    """Ids made by several threads at once never repeat."""
    made: list[list[str]] = [[] for _ in range(4)]

    def make(into: list[str]) -> None:
        into.extend(new_transaction_id() for _ in range(5000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = list(itertools.chain.from_iterable(made))
    assert len(set(together)) == 20_000
    assert all(into == sorted(into) for into in made)


@pytest.mark.servers
def test_forked_child_makes_other_ids() -> None:
    """Parent and child of a fork share the counter's state and yet make no id twice."""
    program = """
import os
from tallystick.ids import new_transaction_id
new_transaction_id()
read_end, write_end = os.pipe()
child = os.fork()
made = [new_transaction_id() for _ in range(300)]
if child == 0:
    os.write(write_end, ",".join(made).encode())
    os._exit(0)
os.close(write_end)
theirs = b""
while chunk := os.read(read_end, 65536):
    theirs += chunk
os.waitpid(child, 0)
theirs = theirs.decode().split(",")
print(len(theirs), len({text[19:] for text in made} & {text[19:] for text in theirs}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["300", "0"]
