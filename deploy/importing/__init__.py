"""Payments files: read, carried out once, with a result file of what became of each row."""

from deploy.importing.csv_table import CsvTable
from deploy.importing.importer import MAX_RETRY_SECONDS, Importer, ImportSettings, ImportSummary, opened
from deploy.importing.payments_file import COLUMNS, PaymentsFile
from deploy.importing.results_file import OPEN_OUTCOMES, read_results, result_path

__all__ = [
    "COLUMNS",
    "MAX_RETRY_SECONDS",
    "OPEN_OUTCOMES",
    "CsvTable",
    "ImportSettings",
    "ImportSummary",
    "Importer",
    "PaymentsFile",
    "opened",
    "read_results",
    "result_path",
]
