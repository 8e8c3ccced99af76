"""Records of tables, as CSV writers and careless scripts make them."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsmith.data.rows import Finding, refuse
from capsmith.data.text_files import read_lines, records
from capsmith.errors import DataError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=40)


def split(text: str, columns: int = 2, *, is_text_last: bool = True) -> list[tuple[int, list[str]]]:
    lines = enumerate(text.removesuffix("\n").split("\n"), start=1)
    return list(records(lines, ",", columns, is_text_last=is_text_last))


@given(st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1))
def test_what_a_csv_writer_wrote_is_read_back(rows: list[tuple[str, str]]) -> None:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    assert [fields for _, fields in split(content.getvalue())] == [list(row) for row in rows]


@given(st.lists(TEXT.filter(lambda text: ',"' not in f",{text}"), min_size=1))
def test_text_that_was_never_quoted_is_taken_whole(texts: list[str]) -> None:
    content = "".join(f"a.jpg,{text}\n" for text in texts)
    assert [fields for _, fields in split(content)] == [["a.jpg", text] for text in texts]


@given(st.text(max_size=300))
def test_any_text_gives_records_in_order(text: str) -> None:
    numbers = [number for number, _ in split(text)]
    assert numbers == sorted(set(numbers))


def test_quotes_over_lines_and_quotes_that_never_close() -> None:
    closed = 'a.jpg,"one\ntwo, ""three"""\nb.jpg,four\n'
    assert split(closed) == [(1, ["a.jpg", 'one\ntwo, "three"']), (3, ["b.jpg", "four"])]
    opened = 'a.jpg,"one\nb.jpg,two\nc.jpg,three\n'
    assert split(opened) == [
        (1, ["a.jpg", '"one']),
        (2, ["b.jpg", "two"]),
        (3, ["c.jpg", "three"]),
    ]
    careless = 'a.jpg,"Stop" , says the sign .\n'
    assert split(careless) == [(1, ["a.jpg", '"Stop" , says the sign .'])]


def test_lines_of_plain_gzip_and_xz_files(tmp_path: Path) -> None:
    content = "\ufeffA dog .\r\nZwei Bären .".encode()
    for name, data in (
        ("plain", content),
        ("gzip", gzip.compress(content, mtime=0)),
        ("xz", lzma.compress(content)),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        assert list(read_lines(path, refuse)) == [(1, "A dog ."), (2, "Zwei Bären .")]
        path.write_bytes(data[:-4])
        if name != "plain":
            with pytest.raises(DataError, match="cannot be read"):
                list(read_lines(path, refuse))


@given(st.binary(max_size=200))
def test_any_bytes_give_lines_or_a_finding(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(b"a" + data)
    findings: list[Finding] = []
    numbers = [number for number, _ in read_lines(path, findings.append)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {finding.kind for finding in findings} <= {"encoding"}
