"""Moments as people type them: "2026-03-01T12:30:00Z", "2026-03-01", "2h" (ago), "now".

Text without a time zone is UTC: the same command must mean the same on every machine. Moments are cut to
milliseconds, the resolution of the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AGO = re.compile(r"(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?"
                  r"(?:(?P<seconds>\d+(?:\.\d+)?)s)?")  # fmt: skip
_EXAMPLES = '"2026-03-01T12:30:00Z", "2026-03-01", "2h", "1d12h" or "now"'


def parse_moment(text: str, now: datetime) -> datetime:
    """The moment that ``text`` names, in UTC; ``now`` is what "2h" counts back from.

    Raises ValueError, with a sentence for people, when it names none.
    """
    words = text.strip()
    if words == "now":
        return _cut(now)
    ago = _AGO.fullmatch(words) if words else None
    try:
        if ago is not None:
            return _cut(now - parse_duration(words))
        moment = datetime.fromisoformat(words)
        return _cut(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: write {_EXAMPLES}") from None


def parse_duration(text: str) -> timedelta:
    """A length of time such as "90s", "30m", "1d12h"; a plain number is seconds.

    Raises ValueError, with a sentence for people, when it is none.
    """
    words = text.strip()
    found = _AGO.fullmatch(words + "s" if words.isdecimal() else words) if words else None
    if found is None:
        raise ValueError(f'{text!r} is no length of time: write "90s", "30m", "1d12h" or seconds')
    try:
        return timedelta(**{unit: float(count) for unit, count in found.groupdict().items() if count})
    except OverflowError:
        raise ValueError(f"{text!r} is too long a time") from None


def moment_text(moment: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond; :func:`parse_moment` reads it."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def times(moments: Iterable[datetime]) -> Iterator[Sequence[str]]:
    """Moments for the rows of a narrow table: times of day in UTC, each day's first one under its date."""
    day = ""
    for moment in moments:
        date, _, time = moment_text(moment).rstrip("Z").partition("T")
        yield (time,) if date == day else (date, time)
        day = date


def ms_of(moment: datetime) -> int:
    """Milliseconds since 1970, as the ledger counts."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def moment_of_ms(ms: int) -> datetime:
    """The moment so many milliseconds after 1970 began, in UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


def _cut(moment: datetime) -> datetime:
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
