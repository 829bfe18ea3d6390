"""What is told of a measurement: figures, tables, Markdown, pictures."""

from bench.reporting import report, report_files
from bench.reporting.cluster_run import TRANSFER_PATH, Point, measure_cluster
from bench.reporting.figures import MICROS, document, percentiles_ms
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
]
