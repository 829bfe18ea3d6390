"""The load: processes that send calls and check every answer, and the measurement around them."""

from bench.load.client import Counted, LoadClient, LoadHandler, LoadSettings, Run
from bench.load.latency import PERCENTILES, CurvePoint, Latencies
from bench.load.measurement import ENTRIES_A_TRANSFER, MeasuredRun, Measurement, measure
from bench.load.processes import Load, RunResult, load_processes
from bench.load.tally import Tally

__all__ = [
    "ENTRIES_A_TRANSFER",
    "PERCENTILES",
    "Counted",
    "CurvePoint",
    "Latencies",
    "Load",
    "LoadClient",
    "LoadHandler",
    "LoadSettings",
    "MeasuredRun",
    "Measurement",
    "Run",
    "RunResult",
    "Tally",
    "load_processes",
    "measure",
]
