"""CPU time of processes, and of the whole machine, and memory, from /proc (proc(5)).

The kernel counts in ticks of a hundredth of a second, so a run lasts seconds before its figures mean much.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# Fields 14 to 17 of /proc/PID/stat, counted from the state, which follows the name in brackets: utime, stime,
# and the same of children that have ended. A Redis rewrites its append-only file in a child.
_STATE, _TIMES, _START_TICKS = 0, slice(11, 15), 19
# In the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
_BUSY = (0, 1, 2, 5, 6)
_STOLEN = 7


@dataclass(frozen=True, slots=True)
class CpuSpent:
    """Seconds of CPU spent between two readings."""

    by_process: Mapping[str, float]
    # All the rest of the machine: other programs, and work of the kernel that it charges to nobody.
    elsewhere: float
    # What the hypervisor gave to others while this machine wanted it.
    stolen: float

    @property
    def in_all(self) -> float:
        """What the named processes spent together."""
        return sum(self.by_process.values())


@dataclass(frozen=True, slots=True)
class CpuReading:
    """Seconds of CPU since each process, and the machine, started.

    ``started`` tells a process from another one that got its id.
    """

    by_process: Mapping[str, float]
    started: Mapping[str, str]
    busy: float
    stolen: float

    def until(self, later: CpuReading) -> CpuSpent:
        """What was spent from this reading to a later one; BenchError when a process was replaced between."""
        for name, started in self.started.items():
            if later.started[name] != started:
                raise BenchError(f"{name} was replaced by another process while it was measured")
        spent = {name: later.by_process[name] - before for name, before in self.by_process.items()}
        busy = later.busy - self.busy
        # The kernel adds up the machine and the processes at different moments: never below zero.
        return CpuSpent(spent, max(0.0, busy - sum(spent.values())), later.stolen - self.stolen)


def read_cpu(pids: Mapping[str, int]) -> CpuReading:
    """Reads what the named processes have spent so far; BenchError when one of them does not run."""
    spent, started = {}, {}
    for name, pid in pids.items():
        fields = _stat_fields(name, pid)
        spent[name] = sum(int(ticks) for ticks in fields[_TIMES]) / _TICKS_A_SECOND
        started[name] = fields[_START_TICKS]
    with Path("/proc/stat").open() as source:
        machine = [int(ticks) for ticks in source.readline().split()[1:]]
    busy = sum(machine[field] for field in _BUSY) / _TICKS_A_SECOND
    return CpuReading(spent, started, busy, machine[_STOLEN] / _TICKS_A_SECOND)


def read_tree(name: str, pid: int) -> float:
    """Seconds of CPU that a process and its children, those that ended included, have spent so far.

    For servers that come and go as children of one: their time is their parent's once they have ended.
    Raises BenchError when the parent does not run.
    """
    ticks = sum(int(spent) for spent in _stat_fields(name, pid)[_TIMES])
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        # One that ends right now is found again, in its parent's time, by the next reading.
        with contextlib.suppress(BenchError):
            ticks += sum(int(spent) for spent in _stat_fields(name, int(child))[_TIMES])
    return ticks / _TICKS_A_SECOND


def peak_memory_mib() -> float:
    """The most that this process has had in memory since its program was loaded (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise BenchError("/proc/self/status has no VmHWM")


def _stat_fields(name: str, pid: int) -> list[str]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise BenchError(f"{name} (pid {pid}) does not run") from None
    # The name in brackets may hold spaces and brackets itself.
    fields = stat.rpartition(")")[2].split()
    if fields[_STATE] in {"Z", "X"}:
        raise BenchError(f"{name} (pid {pid}) has ended")
    return fields
