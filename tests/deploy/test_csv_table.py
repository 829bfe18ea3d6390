"""CSV that comes in is read as it stands, or refused: never guessed at."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import TableError
from deploy.importing.csv_table import MAX_ROW_BYTES, CsvTable, TableRow

_REQUIRED = ("transaction_id", "amount")
_OPTIONAL = ("reference",)
_HEADER = b"transaction_id,amount,reference\n"


def _table(content: bytes) -> list[TableRow]:
    return list(CsvTable("p.csv", io.BytesIO(content), _REQUIRED, _OPTIONAL))


def test_a_row_is_its_cells_with_its_number_and_line() -> None:
    """Nothing is interpreted; blank lines are no rows, and a quoted cell may go on over lines."""
    rows = _table(_HEADER + b'a, 1e5 ,"x,\ny"\n\nb,2,\n')
    assert rows == [TableRow(1, 2, ("a", " 1e5 ", "x,\ny")), TableRow(2, 5, ("b", "2", ""))]


def test_columns_may_stand_in_any_order_and_optional_ones_may_lack() -> None:
    """A spreadsheet's own order, its further columns, capitals and byte order mark do no harm."""
    content = b"\xef\xbb\xbfAmount,note, Transaction_Id ,amount_eur,\r\n3,n,id,4,\r\n"
    assert _table(content) == [TableRow(1, 2, ("id", "3", ""))]


@pytest.mark.parametrize(
    ("line", "defect"),
    [
        (b"id,12,50,\n", "4 cells, the header names 3"),
        (b"id,12,50,rent,more\n", "5 cells, the header names 3"),
        (b"id,1\n", "2 cells, the header names 3"),
        (b"id;1;x\n", "1 cells, the header names 3"),
        (b"id,1,\xff\n", "not UTF-8"),
        # Two halves of a character, in two cells.
        (b"id\xc3,\xa91,\n", "not UTF-8"),
        (b"id,1," + b"x" * MAX_ROW_BYTES + b"\n", f"more than {MAX_ROW_BYTES}"),
    ],
)
def test_a_row_that_can_be_delimited_and_is_wrong_fails_alone(line: bytes, defect: str) -> None:
    """And the rows around it are read as ever."""
    first, bad, last = _table(_HEADER + b"1,1,\n" + line + b"3,3,\n")
    assert defect in bad.defect
    assert (bad.number, bad.line) == (2, 3)
    assert not first.defect
    assert not last.defect
    "".join(bad.cells).encode()


def test_a_cell_in_a_column_without_a_name_is_a_defect() -> None:
    """Spreadsheets leave empty columns behind; what stands in one may have been meant for another."""
    good, bad = _table(b"transaction_id,amount,,\n1,1,,\n2,1,,250.00\n")
    assert not good.defect
    assert "no name" in bad.defect


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"transaction_id,reference\n", "missing: amount"),
        (b"amount,transaction_id,amount\n", "'amount' is named twice"),
        (b"transaction_id,amount,note,Note\n", "'note' is named twice"),
        (b"transaction_id,amout\n", "'amout' is not known: is 'amount' meant"),
        (b"transaction_id,amount,refrence\n", "'refrence' is not known: is 'reference' meant"),
        (b"transaction id,amount\n", "is 'transaction_id' meant"),
        (b"transaction_id,amount,ref\n", "'ref' is not known: is 'reference' meant"),
        (b"transaction_id;amount;reference\n1;2;3\n", "separated by semicolons"),
        (b"transaction_id\tamount\n", "separated by tabs"),
        ("transaction_id,amount\n".encode("utf-16"), "UTF-16"),
        (_HEADER + b'id,1,"oops\nid,1,\n', "line 3: the quoting is wrong"),
        (_HEADER + b'1,1,"a"b\n', "line 2: the quoting is wrong"),
        (_HEADER + b'1,1,"rent\n2,1,\n3,1,"\n4,1,\n', "line 2: a quoted cell goes on over 3 lines"),
        (_HEADER + b"1,1,\r2,1,\n", "a carriage return stands alone"),
        (_HEADER + b"1,1," + b"x" * 140_000 + b"\n", "line 2: field larger"),
    ],
)
def test_a_file_that_leaves_a_doubt_is_refused_as_a_whole(content: bytes, problem: str) -> None:
    """Before its first row is given out, wherever the doubt stands."""
    with pytest.raises(TableError, match=problem) as caught:
        CsvTable("p.csv", io.BytesIO(content), _REQUIRED, _OPTIONAL)
    assert str(caught.value).startswith("p.csv")


def test_a_doubt_far_behind_is_found_before_the_first_row() -> None:
    """A stray quote in row 6,400 must not let the 6,399 before it be paid."""
    content = _HEADER + b"id,1,\n" * 6_399 + b'id,1,"oops\n' + b"id,1,\n" * 100
    with pytest.raises(TableError, match="the quoting is wrong"):
        CsvTable("p.csv", io.BytesIO(content), _REQUIRED)


@given(st.binary(max_size=300) | st.text(alphabet='a,;"\n\r\t 1', max_size=60).map(str.encode))
def test_any_bytes_are_rows_or_a_refusal(body: bytes) -> None:
    """And what is given out twice is the same, as many rows as were counted."""
    try:
        table = CsvTable("p.csv", io.BytesIO(_HEADER + body), _REQUIRED, _OPTIONAL)
    except TableError:
        return
    rows = list(table)
    assert rows == list(table)
    assert len(rows) == table.rows_total
    for row in rows:
        "".join(row.cells).encode()
