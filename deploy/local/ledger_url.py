"""Where the ledger database is: an SQLAlchemy URL, given or the default, and how it may be shown.

A URL may hold a password, so none is printed but by :func:`masked`; :func:`without_passwords` is for texts of
others, which may quote one.

SQLAlchemy is imported where it is used: it takes longer than most commands, few of which need it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import DataError

if TYPE_CHECKING:
    from sqlalchemy import URL

FILE_NAME = "ledger.db"
_HIDDEN = "hidden"
# user:PASSWORD@ of a URL, up to its last @; password=PASSWORD of a query or of a connection string, and
# 'password': 'PASSWORD' of a dict, quoted as libpq, Python and JSON do it. Whatever follows up to the next
# space is hidden with it.
_PASSWORDS = (
    re.compile(r"(://[^\s:/@]*:)\S*(?=@)"),
    re.compile(
        r"""(password(?:\s*=|\\?['"]\s*:)\s*)(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\s&])[^\s&]*""",
        re.IGNORECASE,
    ),
)


def default_url(data: Path) -> str:
    """SQLite, in a file of the cluster's data folder."""
    return f"sqlite:///{data.absolute() / FILE_NAME}"


def checked(url: str) -> str:
    """The URL as it is remembered: a file's path is made absolute, for servers start in other folders.

    Raises DataError when it is no URL of SQLite or PostgreSQL, or names no file.
    """
    parsed = _parsed(url)
    match parsed.get_backend_name():
        case "postgresql":
            return url
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed.set(database=str(Path(parsed.database).absolute())).render_as_string(
                hide_password=False
            )
        case "sqlite":
            raise DataError("a ledger in memory would be lost: name a file, as in sqlite:////srv/ledger.db")
    raise DataError(f"a ledger is kept in SQLite or PostgreSQL, not in {parsed.get_backend_name()}")


def rebased(url: str, old: Path, new: Path) -> str:
    """The URL of a ledger once its data folder is ``new``, not ``old``: a file within it moves along."""
    file = sqlite_file(url) if url else None
    if file is None or not file.is_relative_to(old):
        return url
    moved = new.absolute() / file.relative_to(old)
    return _parsed(url).set(database=str(moved)).render_as_string(hide_password=False)


def masked(url: str) -> str:
    """The URL for people to see: without its passwords."""
    parsed = _parsed(url)
    shown = {name: _HIDDEN if "password" in name.lower() else value for name, value in parsed.query.items()}
    if parsed.password is not None:
        parsed = parsed.set(password=_HIDDEN)
    return parsed.set(query=shown).render_as_string(hide_password=False)


def without_passwords(text: str) -> str:
    """The text, with every password of a URL or a connection string in it hidden."""
    for password in _PASSWORDS:
        text = password.sub(rf"\1{_HIDDEN}", text)
    return text


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite ledger; None for another database."""
    parsed = _parsed(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - see above
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - the same

    from shard_node.ledger.store import no_url  # noqa: PLC0415 - the same

    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise DataError(no_url(url)) from None
