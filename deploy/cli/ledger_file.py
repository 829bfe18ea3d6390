"""Finds the ledger's database for those commands that read it themselves."""

from __future__ import annotations

from pathlib import Path

from deploy.errors import NoClusterError
from deploy.local import DEFAULT_DATA, checked, cluster_file, default_url, sqlite_file


def find_ledger(ledger: str | None, data: Path | None) -> str:
    """The ledger's URL: as given, else that of the cluster in ``data``, which need not run.

    Raises NoClusterError when there is no such cluster, or no ledger in its file yet.
    """
    if ledger is not None:
        url = checked(ledger)
    else:
        folder = data or DEFAULT_DATA
        record = cluster_file.read(folder)
        if record is None:
            raise NoClusterError(
                f"there is no cluster in {folder}: name its folder with --data, or the ledger with --ledger"
            )
        url = record.ledger or default_url(folder)
    file = sqlite_file(url)
    # SQLite would make an empty one.
    if file is not None and not file.exists():
        raise NoClusterError(f"there is no ledger in {file}: has an archiver run?")
    return url
