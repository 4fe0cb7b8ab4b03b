from io import BytesIO

import pytest

from serving.errors import InvalidInput
from serving.offline import csv_lines, csv_rows
from serving.offline.columns import Columns
from serving.offline.csv_lines import BLOCK_BYTES, BLOCK_LINES, line_blocks, split_fields, split_rows
from serving.offline.items import Place


def test_blocks_hold_whole_lines_and_every_byte():
    text = b"".join(b"%d\n" % number * 9 for number in range(60_000))
    blocks = list(line_blocks(BytesIO(text)))
    assert len(blocks) > 2
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) == text


def test_a_line_longer_than_a_block_is_refused():
    with pytest.raises(InvalidInput, match="a line longer"):
        list(line_blocks(BytesIO(b"1\n" + b"x" * 3_000_000)))


def test_blocks_end_before_a_row_that_is_not_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(csv_lines, "BLOCK_LINES", BLOCK_BYTES)
    row = b'"a\nb",1,"c\nd"\n'
    blocks = list(line_blocks(BytesIO(row * 200_000)))
    assert len(blocks) > 2
    assert all(block.startswith(row) and block.endswith(row) for block in blocks)
    assert b"".join(blocks) == row * 200_000


@pytest.mark.parametrize("height", [2, 12, 25, BLOCK_LINES])
def test_blocks_of_many_lines_end_before_a_row_that_is_not_whole(height: int):
    row = b'1,"' + b"a\n" * (height - 1) + b'"\n'
    text = row * (3 * BLOCK_LINES // height)
    blocks = list(line_blocks(BytesIO(text)))
    assert len(blocks) > 2
    assert all(block.startswith(b"1,") and len(block) % len(row) == 0 for block in blocks)
    assert b"".join(blocks) == text


def test_a_stray_quote_holds_no_more_than_a_block():
    text = b'"x\n' + b"1\n" * 3_000_000
    blocks = list(line_blocks(BytesIO(text)))
    assert b"".join(blocks) == text
    assert max(map(len, blocks)) <= 2 * BLOCK_BYTES
    assert max(block.count(b"\n") for block in blocks) <= BLOCK_LINES


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        (b'"a, b",1\r\n', [b"a, b", b"1"]),
        (b'"a ""b""",\xff', [b'a "b"', b"\xff"]),
        (b'"a\nb",1', [b"a\nb", b"1"]),
        (b'"a",1\r2', [b'"a"', b"1\r2"]),
        (b"a,,", [b"a", b"", b""]),
    ],
)
def test_a_row_is_split_as_its_quotes_say(row: bytes, fields: list[bytes]):
    assert split_fields(row, b",") == fields


def test_lines_are_joined_only_to_a_row_of_the_right_length():
    data = b'1,"a\n\nb"\n\n2,"c\n3,d\n4,e"\n5,f\n'
    joined = [(0, b'1,"a\n\nb"'), (4, b'2,"c\n3,d\n4,e"'), (7, b"5,f")]
    assert split_rows(data, b",", 2) == joined
    assert [number for number, _ in split_rows(data, b",", 3)] == [0, 2, 4, 5, 6, 7]


def test_blank_lines_are_not_made_rows_of_to_find_that_they_are_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(csv_rows, "parse_whole_numbers", None)
    monkeypatch.setattr(csv_rows, "parse_numbers", None)
    dialect = csv_rows.Dialect(Columns(tuple(range(1, 785)), 0, 785), b",", 255)
    block = csv_rows.CsvBlock(Place(0, "a"), dialect, 2, b"\n" * BLOCK_LINES)
    assert block.decode().names == []


def test_the_shortest_rows_are_read_as_a_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(csv_rows, "split_rows", None)
    dialect = csv_rows.Dialect(Columns(tuple(range(1, 785)), 0, 785), b",", 255)
    block = csv_rows.CsvBlock(Place(0, "a"), dialect, 2, (b",0" * 784 + b"\n") * 2)
    assert block.decode().names == ["2", "3"]
