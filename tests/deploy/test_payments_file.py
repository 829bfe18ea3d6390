"""Reading a payments file: whatever stands in a row, it is a row and does not stop the rest."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from deploy.errors import DataError
from deploy.payments_file import MAX_ROW_BYTES, PaymentsFile, Row

_HEADER = b"transaction_id,from_account,to_account,amount,currency,reference\n"


def _rows(content: bytes) -> list[Row]:
    return list(PaymentsFile(Path("p.csv"), io.BytesIO(content)))


def test_a_row_is_six_texts_with_its_number() -> None:
    """Nothing is interpreted: the cluster is the judge of amounts and ids."""
    assert _rows(_HEADER + b'id,a,b, 1e5 ,EUR,"x,\ny"\n') == [Row(1, "id", "a", "b", " 1e5 ", "EUR", "x,\ny")]


def test_columns_may_stand_in_any_order_and_reference_may_lack() -> None:
    """A spreadsheet's own order, further columns and its byte order mark do no harm."""
    content = b"\xef\xbb\xbfamount,To_Account,note,currency, transaction_id ,from_account\n3,b,n,EUR,id,a\n"
    assert _rows(content) == [Row(1, "id", "a", "b", "3", "EUR", "")]


def test_blank_lines_are_no_rows() -> None:
    """Numbers count rows, not lines."""
    assert [row.number for row in _rows(_HEADER + b"i,a,b,1,EUR,\n\ni,a,b,2,EUR,\n")] == [1, 2]


@pytest.mark.parametrize(
    ("line", "defect"),
    [
        (b"id,a,b\n", "3 columns"),
        (b"id,a,b,1,EUR,\xff\n", "not UTF-8"),
        (b"id,a,b,1,EUR," + b"x" * MAX_ROW_BYTES + b"\n", f"more than {MAX_ROW_BYTES}"),
    ],
)
def test_a_row_that_cannot_be_sent_says_why(line: bytes, defect: str) -> None:
    """And the rows around it are read as ever."""
    first, bad, last = _rows(_HEADER + b"1,a,b,1,EUR,\n" + line + b"3,a,b,1,EUR,\n")
    assert defect in bad.defect
    assert bad.number == 2
    assert not first.defect
    assert not last.defect
    "".join(bad.texts).encode()


def test_a_header_that_lacks_a_column_is_refused() -> None:
    """The message names what is missing, and what must be there."""
    with pytest.raises(DataError, match="missing: amount, currency"):
        _rows(b"transaction_id,from_account,to_account\n")
    with pytest.raises(DataError, match="missing: transaction_id"):
        _rows(b"")


def test_a_quote_that_is_never_closed_is_refused() -> None:
    """Rather than swallow the rows behind it."""
    with pytest.raises(DataError, match=r"p\.csv, line 3"):
        _rows(_HEADER + b'id,a,b,1,EUR,"oops\nid,a,b,1,EUR,\n')


def test_bytes_read_tell_the_progress() -> None:
    """At the end it is the file's size."""
    content = _HEADER + b"id,a,b,1,EUR,\n" * 3
    source = PaymentsFile(Path("p.csv"), io.BytesIO(content))
    assert len(list(source)) == 3
    assert source.bytes_read == len(content)
