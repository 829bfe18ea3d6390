"""Moments as people type and read them: "2026-03-01T12:30:00Z", "2026-03-01", "2h" (ago), "now".

Text without a zone is in the zone of this machine, or of the variable TZ, and what people are shown is in
that zone, with its offset. Where the clock is changed the rule is that of calendars (RFC 5545, section
3.3.5): of a time that it shows twice the first is meant, and one that it skips is counted on from before the
change. What programs read is in UTC. Moments are cut to milliseconds, the resolution of the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_LENGTH = len("12:30:00.000")
_AGO = re.compile(r"(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?"
                  r"(?:(?P<seconds>\d+(?:\.\d+)?)s)?")  # fmt: skip
# "All that happened before this question", whatever clocks say.
EVERYTHING = datetime.max.replace(tzinfo=UTC)
# Before the first ledger and after the last; every zone's offset leads to a year that Python knows.
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_EXAMPLES = '"2026-03-01T12:30:00Z", "2026-03-01", "2h", "1d12h" or "now"'


def parse_moment(text: str, now: datetime) -> datetime:
    """The moment that ``text`` names, in UTC; ``now`` is what "2h" counts back from.

    Raises ValueError, with a sentence for people, when it names none, or one beyond EARLIEST and LATEST.
    """
    words = text.strip()
    ago = _AGO.fullmatch(words) if words else None
    try:
        named = None if words == "now" or ago else datetime.fromisoformat(words)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write {_EXAMPLES}") from None
    try:
        moment = _cut(named or now - (parse_duration(words) if ago else timedelta()))
    except (ValueError, OverflowError, OSError):
        # Too long ago, or with an offset that leads out of Python's years.
        moment = None
    if moment is None or not EARLIEST <= moment <= LATEST:
        raise ValueError(f"{text!r} is out of range: a time is from {EARLIEST.date()} to {LATEST.date()}")
    return moment


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


def local_text(moment: datetime) -> str:
    """As `moment_text`, for people: in the zone of this machine, with its offset."""
    return moment.astimezone().isoformat(timespec="milliseconds")


def times(moments: Iterable[datetime]) -> Iterator[Sequence[str]]:
    """Moments for the rows of a narrow table: local times, the first of a day under its date and offset."""
    day = ""
    for moment in moments:
        date, _, rest = local_text(moment).partition("T")
        time, offset = rest[:_TIME_LENGTH], rest[_TIME_LENGTH:]
        new_day = f"{date} {offset}"
        yield (time,) if new_day == day else (new_day, time)
        day = new_day


def ms_of(moment: datetime) -> int:
    """Milliseconds since 1970, as the ledger counts."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def moment_of_ms(ms: int) -> datetime:
    """The moment so many milliseconds after 1970 began, in UTC."""
    return _EPOCH + timedelta(milliseconds=ms)


def _cut(moment: datetime) -> datetime:
    utc = (_local(moment) if moment.tzinfo is None else moment).astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def _local(clock: datetime) -> datetime:
    """The moment at which this machine's clock shows that; see above for when it does so twice, or never."""
    earlier, later = sorted(clock.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    shown = earlier.astimezone().replace(tzinfo=None)
    # A time that is skipped is later by the offset before the change than by the one after it.
    return earlier if shown == clock else later
