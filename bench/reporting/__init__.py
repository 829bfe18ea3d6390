"""What is told of a measurement: figures, tables, Markdown, pictures."""

from bench.reporting import report, report_files
from bench.reporting.cluster_run import ClusterFigures, measure_cluster
from bench.reporting.figures import MICROS, document

__all__ = [
    "MICROS",
    "ClusterFigures",
    "document",
    "measure_cluster",
    "report",
    "report_files",
]
