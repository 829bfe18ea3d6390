"""The ledger's URL: a file's path is absolute, and no password is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import DataError
from deploy.local.ledger_url import checked, default_url, masked, sqlite_file, without_passwords


def test_the_default_is_a_file_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its absolute path, for servers start elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert default_url(Path("data")) == f"sqlite:///{tmp_path}/data/ledger.db"
    assert checked("sqlite:///mine.db") == f"sqlite:///{tmp_path}/mine.db"
    assert sqlite_file(checked("sqlite:///mine.db")) == tmp_path / "mine.db"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://ann:s3cret@db/ledger",
        "postgresql://ann@db/ledger?password=s3cret",
        "postgresql://ann@db/ledger?sslpassword=s3cret&sslmode=require",
        "postgresql://ann:s3cret@db:5432/ledger",
    ],
)
def test_a_password_is_masked_and_kept(url: str) -> None:
    """Wherever in the URL it stands; who and where stay readable."""
    assert checked(url) == url
    shown = masked(url)
    assert "s3cret" not in shown
    assert "ann" in shown
    assert "@db" in shown
    assert "hidden" in shown
    assert sqlite_file(url) is None


@pytest.mark.parametrize(
    "text",
    [
        "password=s'cret",
        r"password='a\'s cret'",
        "password = 's cret'",
        'password="s cret"',
        r'"PASSWORD": "a\"s cret"',
        "{'password': 's cret', 'port': 5432}",
        "sslpassword=s'cret&sslmode=require",
        "postgresql://ann:s'cret@db/ledger",
    ],
)
def test_a_password_is_hidden_however_it_is_written(text: str) -> None:
    """As libpq, a URL, Python or JSON quote it; the words beside it stay readable."""
    hidden = without_passwords(f"cannot connect: {text} host=db: password authentication failed")
    assert "cret" not in hidden
    assert hidden.startswith("cannot connect: ")
    assert hidden.endswith("host=db: password authentication failed")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:s3cret@h/d", "s3cret", ""])
def test_what_cannot_hold_a_ledger_is_refused(url: str) -> None:
    """With a sentence that does not repeat the URL."""
    with pytest.raises(DataError) as caught:
        checked(url)
    assert "s3cret" not in str(caught.value)
