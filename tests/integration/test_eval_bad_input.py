"""`capsmith eval` on what does not fit: one line, a status, and never a smaller set in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from capsmith.cli.app import run

REFERENCES = "image,caption\ndog.jpg,a dog runs\ncat.jpg,a cat sits\nbus.jpg,a red bus\n"
GOOD = {"dog.jpg": "a dog", "cat.jpg": "a cat", "bus.jpg": "a bus"}
Eval = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Eval:
    """Runs the command on predictions as they are given; status, stdout and lines of stderr."""
    references = tmp_path / "captions.csv"
    references.write_text(REFERENCES)

    def evaluated(captions: object, *options: str) -> tuple[int, str, list[str]]:
        path = tmp_path / "p.json"
        rows = captions.items() if isinstance(captions, dict) else captions
        path.write_text(json.dumps([{"image_id": p, "caption": c} for p, c in rows]))
        status = run(["eval", str(path), str(references), *options])
        shown = capsys.readouterr()
        return status, shown.out, shown.err.splitlines()

    return evaluated


def test_a_photo_without_prediction(evaluate: Eval) -> None:
    few = {"dog.jpg": "a dog", "cat.jpg": "a cat"}
    status, out, err = evaluate(few)
    assert (status, out) == (1, "")
    (line,) = err
    assert line == (
        "capsmith: p.json: 1 of 3 photos of captions.csv have no caption, first bus.jpg; captions"
        " are of photos like dog.jpg; choose the --split that was captioned, or score the others"
        " with --allow-missing"
    )
    status, out, err = evaluate(few, "--allow-missing")
    assert (status, len(err)) == (0, 1)
    assert "warning: p.json: 1 of 3 photos" in err[0]
    assert "2 photos against 2 references" in out


def test_a_prediction_without_references(evaluate: Eval) -> None:
    many = {**GOOD, "x/tree.jpg": "a tree"}
    status, _, err = evaluate(many)
    assert status == 1
    assert "1 of 4 photos have no reference in captions.csv, first x/tree.jpg" in err[0]
    assert "references are of photos like dog.jpg" in err[0]
    status, out, err = evaluate(many, "--allow-missing", "--json")
    assert status == 0
    assert json.loads(out)["photos"] == 3
    assert len(json.loads(out)["warnings"]) == 1


def test_nothing_in_common_is_an_error_whatever_is_allowed(evaluate: Eval) -> None:
    status, _, err = evaluate({"1.png": "a"}, "--allow-missing")
    assert status == 1
    assert "here they are called like 1.png, there like dog.jpg" in err[0]


def test_punctuation_is_no_caption(evaluate: Eval) -> None:
    status, _, err = evaluate({**GOOD, "bus.jpg": "..."})
    assert status == 0
    assert "1 caption without words, first bus.jpg" in err[0]


def test_a_photo_twice(evaluate: Eval) -> None:
    status, _, err = evaluate([*GOOD.items(), ("photos/dog.jpg", "a second")])
    assert (status, len(err)) == (1, 1)
    assert "p.json: [3]: photos/dog.jpg has a caption already, at" in err[0]


def test_an_empty_prediction_is_counted_and_scores_nothing(evaluate: Eval) -> None:
    status, out, err = evaluate({**GOOD, "cat.jpg": " "}, "--json")
    assert status == 0
    assert "p.json: 1 caption without words, first cat.jpg; they score 0" in err[0]
    scores = {row["photo"]: row["scores"] for row in json.loads(out)["per_photo"]}
    assert scores["cat.jpg"]["CIDEr"] == 0
    assert scores["cat.jpg"]["BLEU-1"] == pytest.approx(0, abs=1e-6)


def test_captions_in_another_language_than_the_references(
    evaluate: Eval, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(GOOD)
    german = tmp_path / "de.jsonl"
    rows = ({"path": p, "caption": c, "language": "de"} for p, c in GOOD.items())
    german.write_text("".join(json.dumps(row) + "\n" for row in rows))
    references = str(tmp_path / "captions.csv")
    assert run(["eval", str(german), references]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "de.jsonl:1: its language is de, that of captions.csv en" in line
    assert run(["eval", str(german), references, "--lang", "de-AT"]) == 0
    assert not capsys.readouterr().err


def test_compared_captions_must_be_of_the_same_photos(evaluate: Eval, tmp_path: Path) -> None:
    other = tmp_path / "q.csv"
    other.write_text("image,caption\ndog.jpg,a dog\ncat.jpg,a cat\n")
    status, _, err = evaluate(GOOD, "--compare", str(other))
    assert status == 1
    assert "q.csv: 1 of 3 photos of captions.csv have no caption, first bus.jpg" in err[0]
    status, out, err = evaluate(GOOD, "--compare", str(other), "--allow-missing")
    assert status == 0
    assert "2 photos against" in out


def test_judgements_of_other_photos(evaluate: Eval, tmp_path: Path) -> None:
    judged = tmp_path / "judged.csv"
    judged.write_text("photo,score\ndog.jpg,1\ncat.jpg,2\ntree.jpg,3\n")
    status, _, err = evaluate(GOOD, "--judgements", str(judged))
    assert status == 1
    assert "judged.csv:4: tree.jpg is not among the photos that are scored" in err[0]
    status, out, err = evaluate(GOOD, "--judgements", str(judged), "--allow-missing", "--json")
    assert status == 0
    assert json.loads(out)["judgements"] == 2
    assert "1 judgement of photos that are not scored, first tree.jpg" in err[0]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--metrics", "blue"), 2, "no metric 'blue'"),
        (("--html", "/nowhere/at/all.html"), 2, "cannot be written"),
        (("--split", "tset"), 1, "there is no split 'tset'"),
        (("--split", "val"), 1, "no captions in split val"),
        (("--lang", "de", "--metrics", "spice"), 2, "knows English only"),
        (("--beam", "3"), 2, "belong to --data"),
        (("--data", "x.csv"), 2, "--data captions photos itself"),
        (("--compare", "/nowhere.json"), 1, "/nowhere.json: cannot be read"),
        (("--column", "photo=bild"), 1, "has no column 'bild'"),
    ],
)
def test_options_that_do_not_fit(
    options: tuple[str, ...], status: int, message: str, evaluate: Eval, tmp_path: Path
) -> None:
    found, out, err = evaluate(GOOD, *options)
    assert (found, out, len(err)) == (status, "", 1), err
    assert message in err[0]


def test_no_input_is_written_over(evaluate: Eval, tmp_path: Path) -> None:
    before = (tmp_path / "captions.csv").read_text()
    for name in ("captions.csv", "p.json"):
        status, _, err = evaluate(GOOD, "--markdown", str(tmp_path / name))
        assert status == 2
        assert "is read or written already" in err[0]
    assert (tmp_path / "captions.csv").read_text() == before


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ("", "captions.csv", "cannot be read: Is a directory"),
        ("absent.json", "captions.csv", "No such file"),
        ("empty", "captions.csv", "is empty"),
        ("p.json", "absent.csv", "no such file or folder"),
        ("p.json", "empty", "no format that is known"),
    ],
)
def test_files_that_cannot_be_read(
    predictions: str, references: str, message: str, evaluate: Eval, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    evaluate(GOOD)
    (tmp_path / "empty").touch()
    assert run(["eval", str(tmp_path / predictions), str(tmp_path / references)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_too_few_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval"]) == 2
    assert "give PREDICTIONS and REFERENCES" in capsys.readouterr().err
