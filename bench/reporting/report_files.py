"""A folder with the whole report: report.json, report.md and pictures."""

from __future__ import annotations

import json
from pathlib import Path

from bench.errors import BenchError
from bench.load import Measurement
from bench.reporting.figures import document
from bench.reporting.report import markdown
from bench.settings import BenchSettings

JSON, MARKDOWN = "report.json", "report.md"


def prepare(folder: Path, name: str = JSON) -> None:
    """Makes the folder, and an empty file of that name in it, before anything is measured.

    Raises BenchError when nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    except OSError as error:
        raise BenchError(f"report: {error}") from error


def write(folder: Path, settings: BenchSettings, measurement: Measurement) -> list[Path]:
    """Writes the report into the folder, over one that is there; the paths."""
    # Here: drawing needs a second to be imported, and is asked for by few.
    from bench.reporting import plots  # noqa: PLC0415

    report_json, report_md = folder / JSON, folder / MARKDOWN
    report_json.write_text(json.dumps(document(settings, measurement), indent=2) + "\n")
    pictures = plots.draw(folder, settings, measurement)
    shown = "\n\n".join(f"![{picture.stem}]({picture.name})" for picture in pictures)
    report_md.write_text(f"{markdown(settings, measurement)}\n{shown}\n")
    return [report_json, report_md, *pictures]
