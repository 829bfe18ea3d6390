"""What a command answers that asks for more than is archived, and when it ends with exit code 2."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from deploy.cli.completeness import EXIT_NOT_KNOWN, answered
from deploy.moments import EVERYTHING
from tallystick import AccountNotFound, NotYetArchived

HOUR = timedelta(hours=1)


class Archive:
    """An archive that is complete up to a moment, None when that is not known."""

    def __init__(self, complete_until: datetime | None) -> None:
        self.late = NotYetArchived("shard-0 lags", complete_until=complete_until)

    def ask(self, **waiting: Any) -> str:
        """Whoever waits, waits in vain."""
        if waiting:
            raise self.late
        return "whole"


def test_the_past_of_the_ledger_is_known_whoever_lags_now() -> None:
    """What is archived past the moment asked for is all there is, if nobody can have seen it happen since."""
    now = datetime.now(UTC)
    archive = Archive(now - HOUR)
    assert answered(archive.ask, now - 2 * HOUR, None, str) == ("whole", None)
    assert answered(archive.ask, now, None, str) == (str(now - HOUR), archive.late)
    assert answered(archive.ask, EVERYTHING, None, str) == (str(now - HOUR), archive.late)


def test_a_clock_that_runs_ahead_makes_the_present_no_past() -> None:
    """A shard with a backlog may have dated what it archived ahead of what the caller asks for."""
    now = datetime.now(UTC)
    ahead = Archive(now + timedelta(seconds=5))
    assert answered(ahead.ask, now, None, lambda _: "less") == ("less", ahead.late)


def test_absence_is_not_known_either(capsys: pytest.CaptureFixture[str]) -> None:
    """An account that is not there yet, or an archive of which nothing is known, ends with exit code 2."""

    def absent(_: datetime) -> str:
        raise AccountNotFound("nobody")

    for complete_until in (datetime.now(UTC) - HOUR, None):
        with pytest.raises(typer.Exit) as ended:
            answered(Archive(complete_until).ask, EVERYTHING, None, absent)
        assert ended.value.exit_code == EXIT_NOT_KNOWN
        assert "shard-0 lags" in capsys.readouterr().err
