"""The command behind `tallystick bench` and `python -m bench`; its options are all of `bench.settings`.

Transfers a second of a cluster, latencies, and CPU microseconds a transfer by process; the load processes run
on this machine and count too. Exit code 1 when the figures are not worth printing.
"""

from __future__ import annotations

from bench.command import Progress, command
from bench.load import Measurement, measure
from bench.reporting import document, report, report_files
from bench.settings import BenchSettings


def _work(settings: BenchSettings, progress: Progress) -> Measurement:
    """Measure transfers a second, latencies, and CPU microseconds a transfer of each process.

    Starts a local cluster with appendfsync always and opens accounts; or uses one that runs (--routers-at).

    Sends transfers from processes of its own; every outcome is compared with the one it should have.

    Checks that each counted transfer moved money once, and that none was made or lost.
    """
    if settings.report is not None:
        report_files.prepare(settings.report)
    measurement = measure(settings, progress)
    if settings.report is not None:
        report_files.write(settings.report, settings, measurement)
        progress(f"the report is in {settings.report}")
    return measurement


main = command(_work, report.show, document, BenchSettings())
