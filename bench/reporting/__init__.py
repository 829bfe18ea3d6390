"""What is told of a measurement: figures, tables, Markdown, pictures."""

from bench.reporting import report, report_files
from bench.reporting.figures import (
    MICROS,
    TRANSFER_PATH,
    Point,
    document,
    measure_cluster,
    percentiles_ms,
    rounded,
)
from bench.reporting.report import Figures

__all__ = [
    "MICROS",
    "TRANSFER_PATH",
    "Figures",
    "Point",
    "document",
    "measure_cluster",
    "percentiles_ms",
    "report",
    "report_files",
    "rounded",
]
