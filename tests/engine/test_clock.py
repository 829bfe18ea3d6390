"""The engine's clock, with the system's clocks made to jump."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shard_node.engine.loading import SOURCES

START_US = 1_800_000_000_000_000
SECOND = 1_000_000


class Clock(ctypes.Structure):
    """`struct clock` of clock.h."""

    _fields_ = (
        ("manual", ctypes.c_bool),
        ("read_us", ctypes.c_int64),
        ("read_at", ctypes.c_int64),
        ("lag_us", ctypes.c_int64),
    )


class Time:
    """The engine's clock over clocks that a test sets: the wall's and the monotonic one, microseconds."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._clock = Clock()
        self._wall = ctypes.c_longlong.in_dll(library, "wall_us")
        self._monotonic = ctypes.c_longlong.in_dll(library, "monotonic_us")
        self._wall.value, self._monotonic.value = START_US, 5 * SECOND
        self._read: Callable[..., int] = library.clock_read
        self._follow: Callable[..., int] = library.clock_follow
        for function in (library.clock_read, library.clock_follow):
            function.restype = ctypes.c_int64

    def passes(self, seconds: int, *, jump: int = 0) -> None:
        """Time goes by; the wall clock jumps by so many seconds besides."""
        self._wall.value += (seconds + jump) * SECOND
        self._monotonic.value += seconds * SECOND

    def read(self) -> int:
        """Seconds since the test's start."""
        return (self._read(ctypes.byref(self._clock)) - START_US) // SECOND

    def follow(self) -> int:
        """Follows the wall clock: by how many seconds."""
        return self._follow(ctypes.byref(self._clock)) // SECOND

    @property
    def lag(self) -> int:
        """Seconds that a jump which was not followed is ahead."""
        lag: int = self._clock.lag_us
        return lag // SECOND


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """clock.c, with the shim for the system's clocks."""
    built = tmp_path_factory.mktemp("clock") / "clock.so"
    sources = [str(SOURCES / "clock.c"), str(Path(__file__).parent / "clock_shim.c")]
    hooked = "-Dclock_gettime=shim_clock_gettime"
    subprocess.run(["gcc", "-std=gnu11", "-shared", "-fPIC", hooked, *sources, "-o", built], check=True)
    return ctypes.CDLL(str(built))


@pytest.fixture
def time(library: ctypes.CDLL) -> Time:
    """A clock that was read once, as at the module's load."""
    time = Time(library)
    assert time.read() == 0
    return time


def test_clock_follows_the_wall(time: Time) -> None:
    """Long pauses and small jumps are followed."""
    time.passes(10_000)
    assert time.read() == 10_000
    time.passes(1, jump=59)
    assert time.read() == 10_060
    assert time.lag == 0


def test_jump_ahead_is_not_followed_until_an_operator_says_so(time: Time) -> None:
    """After a jump of more than a minute time goes on by the monotonic clock, and the lag is shown."""
    time.passes(5, jump=3_600)
    assert (time.read(), time.lag) == (5, 3_600)
    time.passes(10)
    assert (time.read(), time.lag) == (15, 3_600)
    assert time.follow() == 3_600
    assert (time.read(), time.lag) == (3_615, 0)


def test_jump_that_is_taken_back_is_forgotten(time: Time) -> None:
    """When the wall clock comes back, it is followed again."""
    time.passes(5, jump=3_600)
    assert time.read() == 5
    time.passes(5, jump=-3_600)
    assert (time.read(), time.lag) == (10, 0)


def test_clock_that_went_back_and_came_again_has_not_jumped(time: Time) -> None:
    """A wall clock that was set back and set right again is followed at once."""
    time.passes(5, jump=-59)
    assert (time.read(), time.lag) == (-54, 0)
    time.passes(5, jump=59)
    assert (time.read(), time.lag) == (10, 0)


def test_time_goes_on_when_the_clock_is_set_back(time: Time) -> None:
    """By more than a minute: standing still, the shard would take new attempts for ones of the future."""
    time.passes(5, jump=-3_600)
    assert (time.read(), time.lag) == (5, -3_600)
    time.passes(100)
    assert (time.read(), time.lag) == (105, -3_600)
    time.passes(5, jump=3_600)
    assert (time.read(), time.lag) == (110, 0)
    time.passes(5, jump=-3_600)
    assert time.read() == 115
    assert time.follow() == -3_600
    assert (time.read(), time.lag) == (-3_485, 0)
