"""Every published format: recognised by content, read row by row, wrong rows told by line."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsmith.data.formats import NAMES, find_captions, read_rows
from capsmith.data.formats.line_files import url_name
from capsmith.data.rows import Finding, Row
from capsmith.errors import ConfigError, DataError
from tests.datasets import photo_bytes, write_photos, write_tar

FLICKR8K = """image,caption
a.jpg,A child in a pink dress .
a.jpg,"A man , a dog and a ""ball"" ."
b.jpg,Two dogs , one black , run .
"""
FLICKR30K = """image_name,comment_number,comment
a.jpg, 0," Two young , White males are outside near many bushes ."
b.jpg, 1, A man in a blue shirt , standing .
"""
TOKEN = "a.jpg#0\tA child , in a pink dress .\na.jpg#1\tA girl .\nb.jpg#0\tDogs run .\n"
RESULTS = """image_name| comment_number| comment
a.jpg| 0| Two young guys | shaggy hair .
a.jpg| 4   A dog runs across the grass .
b.jpg| 1| Two boys .
"""
CN = "a.jpg#zhc#0 一个穿着泳装的女人躺在海水里。\nb.jpg#zhc#1 两只狗。\n"
CN_TAGGED = "a#zhb#0 两:m 个:q 年轻:a 男人:n 。:w\nb#zhb#0 3:m 只:q 狗:n\n"
CN_APART = "a.jpg#zhm#0 两 只 狗 在 跑\n"
CHINESE = "a\t两只狗在跑\nb\t一个女孩\n"
CONCEPTUAL = (
    "a very typical bus station\thttp://lh6.example.com/-IvRtNLNcG8o/x.jpg\n"
    "sierra looked stunning\thttps://www.example.org/2015/05/a.jpg?w=600\n"
)
COCO = {
    "info": {},
    "images": [{"id": 9, "file_name": "a.jpg"}, {"id": 11, "file_name": "b.jpg"}],
    "annotations": [
        {"image_id": 9, "id": 661611, "caption": "Closeup of bins of food"},
        {"image_id": 11, "id": 1, "caption": "A dog.\n"},
    ],
}
KARPATHY = {
    "images": [
        {
            "filepath": "val2014",
            "sentids": [770337, 771687],
            "filename": "a.jpg",
            "imgid": 0,
            "split": "restval",
            "sentences": [
                {"tokens": ["a", "man"], "raw": "A man.", "imgid": 0, "sentid": 770337},
                {"tokens": ["a"], "raw": "A bike.", "imgid": 0, "sentid": 771687},
            ],
            "cocoid": 391895,
        },
        {"filename": "b.jpg", "split": "test", "sentences": [{"raw": "Dogs."}]},
    ],
    "dataset": "coco",
}
CLIPCAP = [
    {"image_id": 522418, "id": 0, "caption": "A woman cutting a cake."},
    {"image_id": "318219", "id": 1, "caption": "A boy."},
]


def rows(path: Path, name: str = "", **columns: str) -> tuple[list[Row], list[Finding]]:
    findings: list[Finding] = []
    if not name:
        path, name = find_captions(path)
    return list(read_rows(path, name, findings.append, columns=columns)), findings


def written(folder: Path, content: Any, name: str = "captions.txt") -> Path:
    path = folder / name
    data = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("content", "name", "pairs"),
    [
        (
            FLICKR8K,
            "csv",
            [
                ("a.jpg", "A child in a pink dress ."),
                ("a.jpg", 'A man , a dog and a "ball" .'),
                ("b.jpg", "Two dogs , one black , run ."),
            ],
        ),
        (
            FLICKR30K,
            "csv",
            [
                ("a.jpg", " Two young , White males are outside near many bushes ."),
                ("b.jpg", " A man in a blue shirt , standing ."),
            ],
        ),
        (
            TOKEN,
            "flickr-token",
            [
                ("a.jpg", "A child , in a pink dress ."),
                ("a.jpg", "A girl ."),
                ("b.jpg", "Dogs run ."),
            ],
        ),
        (
            RESULTS,
            "flickr-results",
            [
                ("a.jpg", "Two young guys | shaggy hair ."),
                ("a.jpg", "A dog runs across the grass ."),
                ("b.jpg", "Two boys ."),
            ],
        ),
        (CN, "flickr-cn", [("a.jpg", "一个穿着泳装的女人躺在海水里。"), ("b.jpg", "两只狗。")]),
        (CN_TAGGED, "flickr-cn", [("a", "两个年轻男人。"), ("b", "3只狗")]),
        (CN_APART, "flickr-cn", [("a.jpg", "两只狗在跑")]),
        (CHINESE, "clipcap-chinese", [("a", "两只狗在跑"), ("b", "一个女孩")]),
        (
            CONCEPTUAL,
            "conceptual",
            [
                (
                    url_name("http://lh6.example.com/-IvRtNLNcG8o/x.jpg"),
                    "a very typical bus station",
                ),
                (url_name("https://www.example.org/2015/05/a.jpg?w=600"), "sierra looked stunning"),
            ],
        ),
        (COCO, "coco", [("a.jpg", "Closeup of bins of food"), ("b.jpg", "A dog.\n")]),
        (
            KARPATHY,
            "karpathy",
            [("val2014/a.jpg", "A man."), ("val2014/a.jpg", "A bike."), ("b.jpg", "Dogs.")],
        ),
        (CLIPCAP, "clipcap", [("522418", "A woman cutting a cake."), ("318219", "A boy.")]),
        (
            '{"file_name": "a.jpg", "text": "A dog."}\n{"file_name": "b.jpg", "text": "Cats."}\n',
            "jsonl",
            [("a.jpg", "A dog."), ("b.jpg", "Cats.")],
        ),
    ],
)
@pytest.mark.parametrize("form", ["plain", "mark", "windows"])
def test_a_format_is_found_by_content_and_read(
    tmp_path: Path, content: Any, name: str, pairs: list[tuple[str, str]], form: str
) -> None:
    path = written(tmp_path, content, "anything")
    if form == "mark":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    if form == "windows":
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert find_captions(path) == (path, name)
    found, findings = rows(path)
    assert [(row.photo, row.text) for row in found] == pairs
    assert not findings


def test_what_the_file_says_of_language_and_split(tmp_path: Path) -> None:
    assert {row.language for row in rows(written(tmp_path, CN))[0]} == {"zh"}
    assert {row.language for row in rows(written(tmp_path, CHINESE))[0]} == {"zh"}
    assert [row.split for row in rows(written(tmp_path, KARPATHY))[0]] == ["train", "train", "test"]
    assert {row.split for row in rows(written(tmp_path, COCO))[0]} == {""}
    official = written(tmp_path, COCO, "captions_val2014.json")
    assert {row.split for row in rows(official)[0]} == {"val"}
    table = written(tmp_path, "text;lang;path;split\nEin Hund.;de;a.jpg;dev\n")
    (row,), _ = rows(table)
    assert (row.photo, row.text, row.language, row.split) == ("a.jpg", "Ein Hund.", "de", "dev")


def test_columns_of_any_name(tmp_path: Path) -> None:
    path = written(tmp_path, 'bild\tsatz\na.jpg\tEin "Hund" läuft.\n', "x.tsv")
    with pytest.raises(DataError, match="no format that is known"):
        find_captions(path)
    with pytest.raises(DataError, match=r"no column is known to be the photo.*--column photo=NAME"):
        rows(path, "csv")
    with pytest.raises(DataError, match=r"has no column 'bidl'; it has: 'bild', 'satz'"):
        rows(path, "csv", photo="bidl", caption="satz")
    with pytest.raises(ConfigError, match="'foto' is no column's role"):
        rows(path, "csv", foto="bild")
    found, _ = rows(path, "csv", photo="bild", caption="satz")
    assert [(row.photo, row.text) for row in found] == [("a.jpg", 'Ein "Hund" läuft.')]
    with pytest.raises(DataError, match="has the column 'caption' twice"):
        rows(written(tmp_path, "image,caption,caption\na,b,c\n"), "csv")
    with pytest.raises(ConfigError, match="columns are named for csv"):
        rows(path, "coco", photo="bild")


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"filename": ["a.jpg", "b.jpg"], "caption": [["A dog .", "A cat ."], ["Two ."]]}
    path = tmp_path / "data.bin"
    parquet.write_table(pyarrow.table(table), path)
    found, findings = rows(path)
    assert [(row.photo, row.text, str(row.place)) for row in found] == [
        ("a.jpg", "A dog .", f"{path}: row 1"),
        ("a.jpg", "A cat .", f"{path}: row 1"),
        ("b.jpg", "Two .", f"{path}: row 2"),
    ]
    assert not findings
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        rows(path)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow: pip install 'capsmith\[train\]'"):
        rows(written(tmp_path, b"PAR1"))


def test_sidecars(tmp_path: Path) -> None:
    write_photos(tmp_path, ["x/a.jpg", "b.png", "c.jpg"])
    (tmp_path / "x" / "a.txt").write_text("A dog .\n\nA brown dog .\n")
    (tmp_path / "b.caption").write_text("Ein Hund.")
    assert find_captions(tmp_path) == (tmp_path, "sidecar")
    found, findings = rows(tmp_path)
    assert [(row.photo, row.text, row.place.line) for row in found] == [
        ("b.png", "Ein Hund.", 1),
        ("x/a.jpg", "A dog .", 1),
        ("x/a.jpg", "A brown dog .", 3),
    ]
    assert found[0].source is not None
    assert found[0].source.path == tmp_path / "b.png"
    assert not findings


def test_webdataset_shards(tmp_path: Path) -> None:
    photo = photo_bytes()
    first = {
        "dir/000.jpg": photo,
        "dir/000.txt": b"A dog .\nA brown dog .",
        "001.json": b'{"caption": "A cat ."}',
        "001.png": photo,
        "002.jpg": photo,
    }
    write_tar(tmp_path / "s-000.tar", first)
    write_tar(tmp_path / "s-001.tar", {"000.jpg": photo, "000.json": b"[", "000.txt": b"\xe4"})
    assert find_captions(tmp_path / "s-000.tar")[1] == "webdataset"
    assert find_captions(tmp_path) == (tmp_path, "webdataset")
    found, findings = rows(tmp_path)
    assert [(row.photo, row.text) for row in found] == [
        ("s-000/dir/000.jpg", "A dog ."),
        ("s-000/dir/000.jpg", "A brown dog ."),
        ("s-000/001.png", "A cat ."),
        ("s-001/000.jpg", "ä"),
    ]
    source = found[2].source
    assert source is not None
    with source.path.open("rb") as file:
        file.seek(source.offset)
        assert file.read(source.size) == photo
    assert [str(finding).partition("tar: ")[2] for finding in findings] == [
        "000.json: row: is not a JSON object",
        "000.txt: encoding: byte 1 is not UTF-8",
    ]


@pytest.mark.parametrize(
    ("content", "name", "line", "message"),
    [
        ("image,caption\na.jpg,A dog\nb.jpg\n", "csv", 3, "has 1 columns where the header has 2"),
        ("caption,image\nA dog, running,a.jpg\n", "csv", 2, "has 3 columns where"),
        ("a.jpg#0\tA dog\nb.jpg A dog\n", "flickr-token", 2, "is not of the form name.jpg#0<TAB>"),
        ("image_name| comment_number| comment\na.jpg, A\n", "flickr-results", 2, "is not of the f"),
        ("a\tb\nc\n", "clipcap-chinese", 2, "is not of the form id<TAB>caption"),
        ("a\thttp://b\nc\td\te\n", "conceptual", 2, "is not of the form caption<TAB>url"),
        ('{"image": "a", "caption": "b"}\n{\n', "jsonl", 2, "is not a JSON object"),
        ('{"image": "a", "caption": "b"}\n{"x": 1}\n', "jsonl", 2, "image is None, not the name"),
        ('{"image": "", "caption": "b"}\n', "jsonl", 1, "image is '', not the name of a photo"),
        ('{"image": "a", "caption": 3}\n', "jsonl", 1, "a caption, split or language is not text"),
    ],
)
def test_a_wrong_row_is_told_by_its_line_and_the_others_go_on(
    tmp_path: Path, content: str, name: str, line: int, message: str
) -> None:
    path = written(tmp_path, content)
    good = content.count("\n") - 1 - (name in ("csv", "flickr-results"))
    found, (finding,) = rows(path, name)
    assert len(found) == good
    assert str(finding).startswith(f"{path}:{line}: row: {message}")


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        ({**COCO, "annotations": [{"image_id": 10, "caption": "x"}]}, "annotations[0]"),
        ({**COCO, "annotations": [3]}, "annotations[0]"),
        ({**COCO, "images": [*COCO["images"], {"id": 9, "file_name": "c.jpg"}]}, "images[2]"),
        ({"images": [{"filename": "a", "sentences": [{"x": 1}]}]}, "images[0].sentences[0]"),
        ([*CLIPCAP, {"image_id": None, "caption": "x"}], "[2]"),
    ],
)
def test_a_wrong_entry_of_a_json_file_is_named(tmp_path: Path, content: Any, entry: str) -> None:
    path = written(tmp_path, content)
    _, (finding,) = rows(path)
    assert str(finding.place) == f"{path}: {entry}"


def test_lines_that_are_not_utf8_are_told_and_read_as_windows_1252(tmp_path: Path) -> None:
    path = written(tmp_path, "image,caption\na.jpg,Ein Mädchen\nb.jpg,Bär\n".encode("latin-1"))
    found, findings = rows(path)
    assert [row.text for row in found] == ["Ein Mädchen", "Bär"]
    assert [str(finding) for finding in findings] == [
        f"{path}:2: encoding: byte 12 of the line is not UTF-8",
        f"{path}:3: encoding: byte 8 of the line is not UTF-8",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfei\x00m\x00", "is UTF-16; save it as UTF-8"),
        (b"", "is of no format that is known"),
        (b"just\nsome\nlines\n", "is of no format that is known"),
        (b'{"a": 1}', "is of no format that is known"),
        (b'[{"a": 1},\n{]', ":2: is not JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"\x80\x04\x95\x10", "is a pickle, which can run any program"),
        (b"PK\x03\x04archive/data.pkl", "is a pickle, which can run any program"),
        (b"PK\x03\x04photos/a.jpg", "is a zip archive; unpack it"),
        (gzip.compress(b"\0" * 257 + b"ustar" + b"\0" * 250, mtime=0), "is a compressed tar"),
        (b"\x1f\x8bnot gzip", "cannot be read"),
        (gzip.compress(b"image,caption\n" * 99, mtime=0)[:12] + b"\xff" * 9, "cannot be read"),
    ],
)
def test_what_is_no_file_of_captions_is_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError) as error:
        rows(*find_captions(path)) if b"\xff\xfe" not in content else rows(path, "flickr-token")
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


SAMPLES = [
    sample if isinstance(sample, str) else json.dumps(sample)
    for sample in (
        *(FLICKR8K, FLICKR30K, TOKEN, RESULTS, CN, CN_TAGGED, CHINESE, CONCEPTUAL),
        *(COCO, KARPATHY, CLIPCAP, '{"image": "a.jpg", "caption": ["A dog."]}\n' * 2),
    )
]


@given(
    st.sampled_from(SAMPLES),
    st.floats(0, 1),
    st.integers(0, 3),
    st.sampled_from(
        [b'"', b",", b"\t", b"\n", b"\r\n", b"\xe4", b"\xef\xbb\xbf", b"\0", b"|", b"#"]
    )
    | st.binary(max_size=4),
)
def test_a_damaged_file_gives_rows_findings_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, sample: str, where: float, cut: int, put: bytes
) -> None:
    content = sample.encode()
    at = round(where * len(content))
    path = tmp_path_factory.mktemp("damaged") / "captions"
    path.write_bytes(content[:at] + put + content[at + cut :])
    found, message = list[Row](), str(path)
    try:
        found, _ = rows(path)
    except (DataError, ConfigError) as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    assert all(row.photo for row in found)


def test_a_folder_has_one_file_of_captions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no file of captions that is known"):
        find_captions(tmp_path)
    written(tmp_path, "Any licence.\n", "LICENSE.txt")
    written(tmp_path, "a.jpg\nb.jpg\n", "Flickr_8k.trainImages.txt")
    path = written(tmp_path, FLICKR8K)
    assert find_captions(tmp_path) == (path, "csv")
    written(tmp_path, TOKEN, "Flickr8k.token.txt")
    with pytest.raises(
        DataError, match=r"2 files of captions; name one: Flickr8k\.token\.txt, cap"
    ):
        find_captions(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        find_captions(tmp_path / "absent")


def test_an_unknown_format_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no format 'flickr'; the formats are: clipcap"):
        rows(tmp_path, "flickr")
    assert len(NAMES) == 15
