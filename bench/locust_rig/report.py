"""What a test has found, for people: as text, and as a part of Locust's HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.locust_rig.cluster_side import ClusterSide
from bench.locust_rig.knee import ServiceLevels, Step, find_knee, strain
from bench.locust_rig.service_levels import Verdict

_HEADINGS = ("offered/s", "done/s", "p99 ms", "")
# Before what Locust's page draws itself into.
_PAGE = '<div id="root"'
_STYLE = "font-family: sans-serif; color: black; background: white; padding: 1em 1.5em; text-align: right"


@dataclass(frozen=True, slots=True)
class Findings:
    """A test that has ended. ``cluster`` is None when ``cluster_unknown`` says why the cluster is silent."""

    steps: Sequence[Step]
    levels: ServiceLevels
    verdict: Verdict
    cluster: ClusterSide | None
    cluster_unknown: str = ""

    def text(self) -> str:
        """The steps as a table, and a line for everything else."""
        rows = [f"{a:>12} {b:>12} {c:>8}  {d}".rstrip() for a, b, c, d in [_HEADINGS, *self._rows()]]
        return "\n".join([*(rows if self.steps else []), *self._lines()]) + "\n"

    def within(self, page: str) -> str:
        """Locust's HTML report with these findings on top."""
        rows = "".join(
            "<tr>" + "".join(f"<td style='padding: 0 1em'>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in [_HEADINGS, *self._rows()]
        )
        lines = "".join(f"<p style='text-align: left'>{escape(line)}</p>" for line in reversed(self._lines()))
        part = f"<section id='tallystick' style='{_STYLE}'>{lines}<table>{rows}</table></section>"
        return page.replace(_PAGE, part + _PAGE, 1)

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        before = None
        for step in self.steps:
            offered = "again" if step.offered == before else f"{step.offered:,.0f}"
            held = "strained" if strain(step, self.levels) else "held"
            rows.append((offered, f"{step.achieved:,.0f}", f"{step.p99_ms:,.0f}", held))
            before = step.offered
        return rows

    def _lines(self) -> list[str]:
        lines = []
        if self.steps:
            knee = find_knee(self.steps, self.levels)
            held = "no step was held" if knee.step is None else f"{knee.step.rate:,.0f} transfers/s"
            lines.append(f"knee: {held} ({knee.reason})")
        if self.cluster is None:
            lines.append(f"cluster: what its shards counted is not known: {self.cluster_unknown}")
        elif self.cluster.cpu_unknown:
            lines.append(f"CPU of the cluster: not known: {self.cluster.cpu_unknown}")
        else:
            costs = self.cluster.cpu_us()
            told = ", ".join(f"{part} {us:.1f}" for part, us in costs.items())
            lines.append(f"CPU µs a transfer: {told}; in all {sum(costs.values()):.1f}")
        return [*lines, self.verdict.text]
