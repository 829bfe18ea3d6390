"""The load: processes that send calls and check every answer, and the measurement around them."""

from bench.load.client import LoadClient, LoadHandler, LoadSettings, Run
from bench.load.latency import PERCENTILES, CurvePoint, Latencies
from bench.load.measurement import ENTRIES_A_TRANSFER, MeasuredRun, Measurement, measure
from bench.load.processes import Load, RunResult, load_processes
from bench.load.tally import Tally
from bench.load.worker import Worker, ask_all, workers

__all__ = [
    "ENTRIES_A_TRANSFER",
    "PERCENTILES",
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
    "Worker",
    "ask_all",
    "load_processes",
    "measure",
    "workers",
]
