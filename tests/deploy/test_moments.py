"""Times as people type them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone

import pytest

from deploy.moments import local_text, moment_text, parse_duration, parse_moment, times

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
    """Cut to milliseconds."""
    with _clock("UTC"):
        assert parse_moment(text, _NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "  ", "2", "h", "-2h", "2h ago", "1m1h", "2026-13-01", "noon", "caf\udce9"]
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    """Rather than read as some other moment."""
    with pytest.raises(ValueError, match="2026-03-01T12:30:00Z"):
        parse_moment(text, _NOW)


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01",
        "0001-01-01T00:00+05:00",
        "1899-12-31",
        "9999-12-31",
        "9999-12-31T23:59:59-12:00",
        "99999999w",
        "9" * 30 + "w",
        "9" * 400 + "s",
    ],
)
def test_a_moment_beyond_all_ledgers_is_out_of_range(text: str) -> None:
    """A year that some zone does not have, and a malformed duration, are refused in words."""
    with pytest.raises(ValueError, match=r"out of range: a time is from 1900-01-01 to 9999-12-30"):
        parse_moment(text, _NOW)


@contextmanager
def _clock(zone: str) -> Iterator[None]:
    """The zone of this machine, for as long as the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "text", "utc"),
    [
        ("Europe/Berlin", "2026-03-01", "2026-02-28T23:00:00.000Z"),
        ("Europe/Berlin", "2026-07-01T12:00", "2026-07-01T10:00:00.000Z"),
        ("America/New_York", "2026-03-01 12:30", "2026-03-01T17:30:00.000Z"),
        ("America/New_York", "2026-03-01 12:30Z", "2026-03-01T12:30:00.000Z"),
        # Shown twice: the first. Its second is named by its offset.
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30:00.000Z"),
        ("Europe/Berlin", "2026-10-25T02:30+01:00", "2026-10-25T01:30:00.000Z"),
        # Skipped: counted on from before the change. So midnight is a day's begin also where it is skipped.
        ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29T01:30:00.000Z"),
        ("Asia/Beirut", "2026-03-29", "2026-03-28T22:00:00.000Z"),
        ("UTC", "2026-03-01", "2026-03-01T00:00:00.000Z"),
    ],
)
def test_a_time_without_a_zone_is_that_of_this_machine(zone: str, text: str, utc: str) -> None:
    """Also on the days on which the clock is changed."""
    with _clock(zone):
        assert moment_text(parse_moment(text, _NOW)) == utc


def test_people_see_local_times_that_can_be_typed() -> None:
    """With the offset; so both hours of a night in which the clock goes back have names of their own."""
    moment = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    with _clock("Europe/Berlin"):
        shown = [local_text(moment + timedelta(hours=hours)) for hours in (0, 1)]
        assert shown == ["2026-10-25T02:30:00.000+02:00", "2026-10-25T02:30:00.000+01:00"]
        assert [parse_moment(text, _NOW) for text in shown] == [moment, moment + timedelta(hours=1)]
        assert list(times([moment, moment + timedelta(hours=1), moment + timedelta(hours=2)])) == [
            ("2026-10-25 +02:00", "02:30:00.000"),
            ("2026-10-25 +01:00", "02:30:00.000"),
            ("03:30:00.000",),
        ]


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
    """The local midnight counts."""
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    moments = [noon, noon + timedelta(hours=1), noon + timedelta(hours=12)]
    with _clock("Asia/Kolkata"):
        assert list(times(moments)) == [
            ("2026-03-01 +05:30", "17:30:00.000"),
            ("18:30:00.000",),
            ("2026-03-02 +05:30", "05:30:00.000"),
        ]


def test_a_moment_that_is_shown_can_be_typed() -> None:
    """The text names the very millisecond, whatever zone it came from."""
    moment = datetime(2026, 3, 1, 1, 2, 3, 45000, tzinfo=timezone(timedelta(hours=2)))
    assert moment_text(moment) == "2026-02-28T23:02:03.045Z"
    assert parse_moment(moment_text(moment), _NOW) == moment
