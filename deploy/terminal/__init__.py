"""What every command shares: what a screen shows, and what becomes of an error."""

from deploy.terminal.boundary import (
    EXIT_NOT_KNOWN,
    about,
    error_document,
    json_asked_for,
    not_known,
    plain_errors,
    sentence_of,
)
from deploy.terminal.rendering import (
    Piece,
    Screen,
    Sink,
    Styled,
    Table,
    bad,
    csv_sink,
    doubtful,
    err,
    faint,
    good,
    out,
    strong,
    write_json,
)
from deploy.terminal.verification import show_verification, verify_balance

__all__ = [
    "EXIT_NOT_KNOWN",
    "Piece",
    "Screen",
    "Sink",
    "Styled",
    "Table",
    "about",
    "bad",
    "csv_sink",
    "doubtful",
    "err",
    "error_document",
    "faint",
    "good",
    "json_asked_for",
    "not_known",
    "out",
    "plain_errors",
    "sentence_of",
    "show_verification",
    "strong",
    "verify_balance",
    "write_json",
]
