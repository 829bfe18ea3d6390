"""The command line `tallystick`: a module for each group of commands; ``main`` puts them together."""

from deploy.cli.audit import show_findings, show_report
from deploy.cli.bench import run_bench
from deploy.cli.import_payments import DEFAULT_FUND, run_import, show_summary
from deploy.cli.statement_view import read_statement, show_statement

__all__ = [
    "DEFAULT_FUND",
    "read_statement",
    "run_bench",
    "run_import",
    "show_findings",
    "show_report",
    "show_statement",
    "show_summary",
]
