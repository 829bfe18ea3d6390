"""Times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from deploy.moments import moment_text, parse_duration, parse_moment, times

_NOW = datetime(2026, 3, 10, 12, 0, 0, 123456, tzinfo=UTC)
_CUT = _NOW.replace(microsecond=123000)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", _CUT),
        (" 2h ", _CUT - timedelta(hours=2)),
        ("90s", _CUT - timedelta(seconds=90)),
        ("0.5s", _CUT - timedelta(seconds=0.5)),
        ("1w2d3h4m5s", _CUT - timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T12:30", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01 12:30:01.5", datetime(2026, 3, 1, 12, 30, 1, 500000, tzinfo=UTC)),
        ("2026-03-01T12:30:00Z", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01T12:30:00+02:00", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("20260301T123000Z", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
    ],
)
def test_what_people_type_is_a_moment(text: str, moment: datetime) -> None:
    """In UTC where no zone is said, and cut to milliseconds."""
    assert parse_moment(text, _NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "  ", "2", "h", "-2h", "2h ago", "1m1h", "2026-13-01", "99999999w", "noon"]
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    """Rather than read as some other moment."""
    with pytest.raises(ValueError, match="2026-03-01T12:30:00Z"):
        parse_moment(text, _NOW)


def test_lengths_of_time() -> None:
    """Units, or seconds when there is none."""
    assert parse_duration("90") == parse_duration("1m30s") == timedelta(seconds=90)
    assert parse_duration("1w") == timedelta(days=7)
    for text in ("", "-1s", "1.5h", "soon"):
        with pytest.raises(ValueError, match="1d12h"):
            parse_duration(text)
    with pytest.raises(ValueError, match="too long"):
        parse_duration("9" * 20 + "w")


def test_times_in_a_table_bear_a_date_when_it_changes() -> None:
    """Midnight in UTC counts."""
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    moments = [noon, noon + timedelta(hours=1), noon + timedelta(hours=12)]
    assert list(times(moments)) == [
        ("2026-03-01", "12:00:00.000"),
        ("13:00:00.000",),
        ("2026-03-02", "00:00:00.000"),
    ]


def test_a_moment_that_is_shown_can_be_typed() -> None:
    """The text names the very millisecond, whatever zone it came from."""
    moment = datetime(2026, 3, 1, 1, 2, 3, 45000, tzinfo=timezone(timedelta(hours=2)))
    assert moment_text(moment) == "2026-02-28T23:02:03.045Z"
    assert parse_moment(moment_text(moment), _NOW) == moment
