"""What is told of a measurement: figures, tables, Markdown, pictures."""

from bench.reporting import report, report_files
from bench.reporting.cluster_run import ClusterFigures, measure_cluster
from bench.reporting.figures import MICROS, document, percentiles_ms
from bench.reporting.report import Figures

__all__ = [
    "MICROS",
    "ClusterFigures",
    "Figures",
    "document",
    "measure_cluster",
    "percentiles_ms",
    "report",
    "report_files",
]
