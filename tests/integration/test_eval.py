"""`capsmith eval` on small own data, and on real captions where they are."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from capsmith.cli.app import run
from capsmith.evaluate.report import report
from tests.bundles import bundle_with_text_tower, toy_bundle
from tests.datasets import SHARED, write_photos
from tests.integration.command import capsmith

PHOTOS = ("dog.jpg", "cat.jpg", "bus.jpg")
CAPTIONS = ("A dog runs.", "a cat on a mat", "the red bus")
REFERENCES = {
    "dog.jpg": ("A dog is running on grass.", "a brown dog runs"),
    "cat.jpg": ("a cat sits on a mat", "the cat"),
    "bus.jpg": ("a red bus", "a bus in the street"),
}


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """A table of references with the photos beside it."""
    path = tmp_path / "captions.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        rows.writerows([photo, text] for photo, texts in REFERENCES.items() for text in texts)
    write_photos(tmp_path / "photos", PHOTOS)
    return path


def predictions(folder: Path, name: str = "p.json", captions: Any = CAPTIONS) -> Path:
    path = folder / name
    rows = [{"image_id": p, "caption": c} for p, c in zip(PHOTOS, captions, strict=True)]
    path.write_text(json.dumps(rows))
    return path


def scored(capsys: pytest.CaptureFixture[str], *arguments: object) -> Mapping[str, Any]:
    """What `capsmith eval ... --json` prints."""
    assert run(["eval", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_table_has_the_scores_of_the_report(tmp_path: Path, references: Path) -> None:
    result = capsmith("eval", predictions(tmp_path), references)
    known = report(CAPTIONS, list(REFERENCES.values()))
    assert result.status == 0
    assert not result.complaints
    assert result.lines[0].startswith("p.json: 3 photos against 6 references of captions.csv;")
    cider = next(line for line in result.lines if line.startswith("CIDEr"))
    assert cider.split() == [
        "CIDEr", f"{known.cider.value:.3f}", f"{known.cider.low:.3f}", "to",
        f"{known.cider.high:.3f}",
    ]  # fmt: skip


def test_what_caption_prints_is_scored_as_it_is(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    data = scored(capsys, "--data", references, "--model", folder, "--beam", "2")
    for name, option in (("text.tsv", []), ("lines.jsonl", ["--json"]), ("s", ["--scores"])):
        printed = capsmith(
            "caption", tmp_path / "photos", "--model", folder, "--beam", "2", *option
        )
        (tmp_path / name).write_bytes(printed.out)
        found = scored(capsys, tmp_path / name, references)
        assert found["metrics"] == data["metrics"]
    assert data["captions"] == "toy"


def test_predictions_out_is_read_again(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = toy_bundle(tmp_path / "toy").folder, tmp_path / "made.jsonl"
    first = scored(capsys, "--data", references, "--model", folder, "--predictions-out", out)
    assert [json.loads(line)["photo"] for line in out.read_text().splitlines()] == list(PHOTOS)
    assert scored(capsys, out, references)["metrics"] == first["metrics"]


def test_numbers_of_coco_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012}.jpg"} for n in (42, 7)]
    annotations = [
        {"image_id": 42, "caption": "a dog runs"},
        {"image_id": 7, "caption": "a cat sits"},
    ]
    references = tmp_path / "coco.json"
    references.write_text(json.dumps({"images": images, "annotations": annotations}))
    path = tmp_path / "results.json"
    path.write_text(json.dumps([annotations[1], annotations[0]]))
    found = scored(capsys, path, references)
    assert found["metrics"]["BLEU-1"]["value"] == pytest.approx(1)
    assert found["metrics"]["ROUGE-L"]["value"] == pytest.approx(1)


def test_two_systems_are_compared_photo_by_photo(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = predictions(tmp_path)
    other = predictions(tmp_path, "q.json", [texts[0] for texts in REFERENCES.values()])
    found = scored(capsys, first, references, "--compare", other)
    assert found["compared_with"] == "q.json"
    assert found["differences"]["ROUGE-L"]["second"] == pytest.approx(1)
    assert found["differences"]["ROUGE-L"]["is_measurable"]
    assert run(["eval", str(first), str(references), "--compare", str(first)]) == 0
    assert capsys.readouterr().out.count("no measurable difference") == 6


def test_agreement_with_people(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = tmp_path / "judged.csv"
    judged.write_text(
        "photo,caption,score\ndog.jpg,a brown dog runs,4\ndog.jpg,a dog,2\ncat,a bus,1\n"
    )
    found = scored(capsys, predictions(tmp_path), references, "--judgements", judged)
    assert found["judgements"] == 3
    assert found["agreement"]["ROUGE-L"]["kendall_b"] == pytest.approx(1)
    # One number for the whole set says nothing of its captions: only per-caption scores agree.
    judged.write_text("photo,score\ndog.jpg,1\ncat.jpg,3\nbus.jpg,2\n")
    found = scored(capsys, predictions(tmp_path), references, "--judgements", judged)
    assert found["judgements"] == 3


def test_page_and_markdown_are_written_whole(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, table = tmp_path / "out.html", tmp_path / "out.md"
    page.write_text("old")
    arguments = ["--html", page, "--html-photos", 2, "--markdown", table]
    scored(capsys, predictions(tmp_path), references, *arguments)
    text = page.read_text("utf-8")
    assert text.count("data:image/jpeg;base64,") == 2
    assert "2 of 3 photos" in text
    assert "| CIDEr |" in table.read_text("utf-8")
    assert not list(tmp_path.glob(".*.tmp"))


def test_clipscore_by_the_captioner_s_own_tower(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import capsmith as library

    folder = bundle_with_text_tower(tmp_path / "towered").folder
    arguments = (references, "--metrics", "clipscore", "--model", folder)
    found = scored(capsys, predictions(tmp_path, captions=["a dog", "", "a cat"]), *arguments)
    captioner = library.load(folder)
    picture = captioner.embed([tmp_path / "photos" / "dog.jpg"])[0]
    expected = 2.5 * max(0.0, float(picture @ captioner.embed_text(["a dog"])[0]))
    name = captioner.bundle.name
    assert list(found["metrics"]) == [f"CLIPScore ({name})", f"RefCLIPScore ({name})"]
    rows = [row["scores"][f"CLIPScore ({name})"] for row in found["per_photo"]]
    assert rows[0] == pytest.approx(expected, abs=1e-5)
    assert rows[1] == 0


def test_clipscore_by_a_clip_of_transformers(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    from tests import text_towers

    text_towers.save("clip", tmp_path / "tiny")
    arguments = ("--metrics", "clipscore,cider", "--tower", f"transformers:{tmp_path / 'tiny'}")
    found = scored(capsys, predictions(tmp_path), references, *arguments)
    names = list(found["metrics"])
    assert names[0] == "CIDEr"
    assert names[1].startswith("CLIPScore (transformers:")
    assert all(0 <= found["metrics"][name]["value"] <= 2.5 for name in names[1:])


def test_clipscore_needs_every_photo(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bundle_with_text_tower(tmp_path / "towered").folder
    (tmp_path / "photos" / "cat.jpg").unlink()
    arguments = [predictions(tmp_path), references, "--metrics", "clipscore", "--model", folder]
    assert run(["eval", *map(str, arguments)]) == 1
    assert "clipscore: 1 of 3 photos are not found, first cat.jpg" in capsys.readouterr().err


def test_all_metrics_leave_out_what_cannot_run_and_say_so(
    tmp_path: Path, references: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java there
    monkeypatch.delenv("JAVA_HOME", raising=False)
    folder = toy_bundle(tmp_path / "toy").folder
    found = scored(capsys, predictions(tmp_path), references, "--metrics", "all", "--model", folder)
    assert "CIDEr, not D" in found["metrics"]
    assert [w for w in found["warnings"] if "toy has no text tower" in w]
    assert len(found["warnings"]) == 3


@pytest.mark.slow
def test_meteor_by_its_java_program(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from capsmith.evaluate import jars
    from capsmith.evaluate.meteor import meteor

    if shutil.which("java") is None or jars.missing_files(jars.METEOR):
        pytest.skip("no Java, or METEOR's files are not here")
    found = scored(capsys, predictions(tmp_path), references, "--metrics", "meteor")
    known = meteor(CAPTIONS, list(REFERENCES.values()))
    assert found["metrics"]["METEOR"]["value"] == pytest.approx(known.value)
    rows = [row["scores"]["METEOR"] for row in found["per_photo"]]
    assert rows == pytest.approx(list(known.per_photo))


@pytest.mark.parametrize(
    ("language", "name"),
    [("en", "captions.txt"), ("de", "captions.de.csv"), ("zh", "flickr8kzhc.caption.txt")],
)
def test_real_captions_of_people_against_the_others(
    language: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = SHARED / "flickr8k" / name
    if not file.exists():
        pytest.skip(f"no captions at {file}")
    from capsmith.data.references import read_references
    from capsmith.data.sources import DataSource

    read = read_references(
        [DataSource(path=str(file))], base=Path(), split="val", language=language
    )
    path, kept = tmp_path / "people.json", tmp_path / "others.csv"
    path.write_text(json.dumps([{"image_id": p.id, "caption": p.captions[0]} for p in read.photos]))
    with kept.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", "caption"])
        rows.writerows([p.id, text] for p in read.photos for text in p.captions[1:])
    found = scored(capsys, path, kept, "--lang", language)
    assert found["photos"] == len(read.photos) > 900
    # People agree with each other far better than with captions of other photos.
    assert found["metrics"]["CIDEr"]["low"] > 0.4
    if language == "en":
        recorded = json.loads(
            (Path(__file__).parents[1] / "parity" / "coco_metrics.json").read_text()
        )["scores"]["flickr8k-val"]
        assert found["metrics"]["CIDEr"]["value"] == pytest.approx(recorded["cider"], abs=1e-6)
