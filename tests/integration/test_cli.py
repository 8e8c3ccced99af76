"""`capsmith caption` on real photos and files, with a tiny real bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from capsmith import Beam, load, registry
from tests.bundles import bundle_with_text_tower, toy_bundle
from tests.integration.command import (
    EXAMPLES,
    PHOTOS,
    Result,
    capsmith,
    command,
    environment,
    heeding_permissions,
)

CAT = EXAMPLES / "cat.jpg"
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file names and permissions")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "toy").folder


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three photos in two folders, among files that are none."""
    folder = tmp_path / "album"
    (folder / "b").mkdir(parents=True)
    shutil.copy(CAT, folder / "z.JPG")
    shutil.copy(CAT, folder / "b" / "two.jpg")
    shutil.copy(CAT, folder / "a.jpeg")
    (folder / "notes.txt").write_text("no photo")
    (folder / "b" / "more").write_text("no photo")
    return folder


def caption(bundle: Path, *arguments: str | bytes | os.PathLike[str], **options: Any) -> Result:
    # One thread: graphs this small are no faster with two, and the tests share the machine.
    return capsmith("caption", "--model", bundle, "--threads", "1", *arguments, **options)


def paths(result: Result) -> list[str]:
    return [line.split("\t")[0] for line in result.lines]


def test_every_photo_gets_a_line_in_order(bundle: Path) -> None:
    result = caption(bundle, "examples/rocket.jpg", "examples/cat.jpg")
    assert result.status == 0
    assert paths(result) == ["examples/rocket.jpg", "examples/cat.jpg"]
    assert all(len(line.split("\t")[1]) > 3 for line in result.lines)
    assert result.complaints == []


def test_a_folder_is_walked_sorted_and_other_files_are_counted(bundle: Path, album: Path) -> None:
    result = caption(bundle, album)
    assert result.status == 0
    assert paths(result) == [f"{album}/a.jpeg", f"{album}/b/two.jpg", f"{album}/z.JPG"]
    assert result.complaints == ["capsmith: skipped 2 other files"]


@posix
def test_links_in_folders_are_not_followed(bundle: Path, album: Path) -> None:
    (album / "loop").symlink_to(album)
    (album / "link.jpg").symlink_to(CAT)
    result = caption(bundle, album)
    assert len(result.lines) == 3
    assert result.complaints == ["capsmith: skipped 4 other files"]
    named = caption(bundle, album / "link.jpg")
    assert paths(named) == [f"{album}/link.jpg"]


def test_photos_that_cannot_be_read_get_one_line_and_the_others_go_on(
    bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes(CAT.read_bytes()[:9000])
    (tmp_path / "text.jpg").write_text("not a picture")
    bad = [tmp_path / name for name in ("empty.jpg", "cut.jpg", "text.jpg", "missing.jpg")]
    result = caption(bundle, CAT, *bad, CAT)
    assert result.status == 1
    assert paths(result) == [str(CAT), str(CAT)]
    assert len(result.complaints) == len(bad)
    for path, complaint in zip(bad, result.complaints, strict=True):
        assert complaint.startswith(f"capsmith: {path}: ")


def test_json_lines_carry_the_whole_caption_and_failures(bundle: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.jpg"
    result = caption(bundle, "--json", "--num", "2", missing, CAT)
    failure, good = map(json.loads, result.lines)
    assert result.status == 1
    assert failure["path"] == str(missing)
    assert failure["error"]["code"] == "image"
    assert good["path"] == str(CAT)
    assert good["language"] == "en"
    assert good["text"] == good["candidates"][0]["text"]
    assert len({candidate["text"] for candidate in good["candidates"]}) == 2
    assert len(good["tokens"]) == len(good["token_ids"])
    assert good["logprob"] < 0


def test_text_json_and_stream_agree(bundle: Path) -> None:
    options = ("--beam", "1", "examples")
    text = [line.split("\t")[1] for line in caption(bundle, *options).lines]
    as_json = [json.loads(line)["text"] for line in caption(bundle, *options, "--json").lines]
    streamed = [line.split("\t")[1] for line in caption(bundle, *options, "--stream").lines]
    assert len(text) == len(PHOTOS)
    assert text == as_json == streamed


def test_scores_are_two_more_columns(bundle: Path) -> None:
    result = caption(bundle, "--scores", "--num", "3", CAT)
    rows = [line.split("\t") for line in result.lines]
    assert len(rows) == 3
    means = [float(row[3]) for row in rows]
    assert means == sorted(means, reverse=True)
    assert all(float(row[2]) <= float(row[3]) < 0 for row in rows)


def test_sampling_is_seeded_and_filters_act(bundle: Path) -> None:
    def draw(*options: str) -> list[str]:
        return caption(bundle, "--num", "4", *options, CAT).lines

    first = draw("--sample", "--seed", "1")
    assert first == draw("--sample", "--seed", "1")
    assert first != draw("--sample", "--seed", "2")
    greedy = caption(bundle, "--beam", "1", CAT).lines
    assert set(draw("--sample", "--top-k", "1")) == set(greedy)
    assert set(draw("--sample", "--temperature", "0.01")) == set(greedy)
    assert draw("--top-n", "--seed", "3") == draw("--top-n", "--seed", "3")


def test_prompt_and_contrastive(bundle: Path) -> None:
    result = caption(bundle, "--prompt", "two dog", CAT)
    assert result.lines[0].split("\t")[1].startswith("Two dog ")
    assert len(caption(bundle, "--contrastive", CAT).lines) == 1


def test_rerank_puts_the_captions_found_in_another_order(tmp_path: Path) -> None:
    bundle = bundle_with_text_tower(tmp_path / "toy").folder
    captioner = load(bundle, threads=1)
    first = {}
    for order in ("none", "consensus", "match"):
        (line,) = caption(bundle, "--rerank", order, "--beam", "5", CAT).lines
        first[order] = line.split("\t")[1]
        assert first[order] == captioner.caption(CAT, Beam(size=5, rerank=order)).text
    assert len(set(first.values())) > 1
    unknown = caption(bundle, "--prompt", "zebra", CAT)
    assert unknown.status == 2
    assert "zebra" in unknown.complaints[0]


def test_languages(bundle: Path) -> None:
    german = caption(bundle, "--lang", "de", "--json", CAT)
    assert json.loads(german.lines[0])["language"] == "de"
    french = caption(bundle, "--lang", "fr", CAT)
    assert (french.status, french.out) == (2, b"")
    assert "it has: en, de" in french.complaints[0]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--num", "0", str(CAT)],
        ["--num", "5", "--beam", "2", str(CAT)],
        ["--beam", "3", "--sample", str(CAT)],
        ["--temperature", "0.5", str(CAT)],
        ["--top-p", "2", "--sample", str(CAT)],
        ["--contrastive", "--num", "2", str(CAT)],
        ["--rerank", "consensus", "--contrastive", str(CAT)],
        ["--rerank", "consensus", "--beam", "1", str(CAT)],
        ["--rerank", "consensus", "--sample", str(CAT)],
        ["--stream", "--json", str(CAT)],
        ["--no-such-option", str(CAT)],
        ["--device", "abacus", str(CAT)],
        ["https://example.org/photo.jpg"],
        ["-", "-"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(bundle: Path, arguments: list[str]) -> None:
    result = caption(bundle, *arguments, stdin=CAT.read_bytes())
    assert (result.status, result.out) == (2, b"")
    assert len(result.complaints) == 1


def test_a_bundle_that_cannot_be_loaded_is_status_3(bundle: Path, tmp_path: Path) -> None:
    for model in (tmp_path / "missing", tmp_path):
        result = caption(model, CAT)
        assert (result.status, result.out, len(result.complaints)) == (3, b"", 1)
    broken = shutil.copytree(bundle, tmp_path / "broken")
    weights = (broken / "mapper.onnx").read_bytes()
    (broken / "mapper.onnx").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    result = capsmith("check", broken)
    assert result.status == 3
    assert "mapper.onnx" in result.complaints[0]
    assert capsmith("check", bundle).lines[0].startswith(f"{bundle}: toy 1.0.0 is intact: 6 files")


def test_models_are_listed_with_languages_and_licence() -> None:
    lines = capsmith("models").lines
    bundle = registry.open_bundle(registry.DEFAULT)
    assert f"{bundle.name} {bundle.version} (default)" in lines
    assert f"  languages: {', '.join(bundle.languages)}" in lines
    assert f"  licence:   {bundle.licence}" in lines
    assert len(lines) == 5 * len(registry.names())


def test_the_embedded_captioner_describes_the_example_photos() -> None:
    result = capsmith("caption", "examples", "--threads", "1")
    assert (result.status, paths(result)) == (0, [f"examples/{name}" for name in PHOTOS])
    captions = [line.split("\t")[1] for line in result.lines]
    assert all(len(caption.split()) >= 4 for caption in captions)
    assert len(set(captions)) == len(captions)


def test_addresses_are_fetched_only_from_public_hosts(bundle: Path) -> None:
    address = "http://127.0.0.1/cat.jpg"
    result = caption(bundle, "--allow-urls", address, CAT)
    assert result.status == 1
    assert paths(result) == [str(CAT)]
    assert "not a public address" in result.complaints[0]


def test_stdin(bundle: Path) -> None:
    piped = caption(bundle, "-", stdin=CAT.read_bytes())
    named = caption(bundle, CAT)
    assert piped.lines == [f"-\t{named.lines[0].split(chr(9))[1]}"]
    empty = caption(bundle, "-", stdin=b"")
    assert (empty.status, empty.complaints) == (1, ["capsmith: -: the file is empty"])


@posix
def test_hostile_names_are_escaped_in_text_and_exact_in_json(bundle: Path, tmp_path: Path) -> None:
    name = b"tab\there\nbyte\xff esc\x1b[31m back\\slash \xe2\x80\xae.jpg"
    photo = os.fsencode(tmp_path) + b"/" + name
    shutil.copy(CAT, photo)
    for locale in ("C", "C.UTF-8"):
        env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        shown = caption(bundle, photo, env=env).lines
        expected = r"tab\there\nbyte\xff esc\x1b[31m back\\slash \u202e.jpg"
        assert [Path(line.split("\t")[0]).name for line in shown] == [expected]
        line = caption(bundle, "--json", photo, env=env).lines[0]
        assert os.fsencode(json.loads(line)["path"]) == photo
    Path(os.fsdecode(photo)).unlink()
    complaint = caption(bundle, photo).err.decode("utf-8")
    assert complaint.count("\n") == 1
    assert not any(unicodedata.category(c) == "Cc" for c in complaint.strip())


@posix
def test_no_permission_is_one_line(bundle: Path, album: Path) -> None:
    prefix = heeding_permissions()
    if prefix is None:
        pytest.skip("root reads everything, and setpriv, which could change that, is missing")
    (album / "a.jpeg").chmod(0)
    (album / "b").chmod(0)
    arguments = command("caption", "--model", bundle, "--threads", "1", album)
    done = subprocess.run(
        [*prefix, *arguments], capture_output=True, env=environment(), check=False
    )
    (album / "b").chmod(0o700)
    assert done.returncode == 1
    assert [line.split(b"\t")[0] for line in done.stdout.splitlines()] == [
        os.fsencode(album / "z.JPG")
    ]
    complaints = done.stderr.decode().splitlines()
    assert len(complaints) == 3
    assert "a.jpeg" in complaints[0]
    assert complaints[1].startswith(f"capsmith: {album}/b: cannot be listed")


def test_output_is_utf8_whatever_the_locale(bundle: Path, tmp_path: Path) -> None:
    photo = tmp_path / "Übung 猫.jpg"
    shutil.copy(CAT, photo)
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    assert paths(caption(bundle, photo, env=env)) == [str(photo)]


def test_drawings_hold_photo_and_caption(bundle: Path, album: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    result = caption(bundle, "--draw", drawn, album, album / "z.JPG")
    assert result.status == 0
    names = sorted(str(path.relative_to(drawn)) for path in drawn.rglob("*.jpg"))
    assert names == ["a.jpg", "b/two.jpg", "z-2.jpg", "z.jpg"]
    with Image.open(drawn / "a.jpg") as sheet, Image.open(CAT) as photo:
        assert sheet.width == photo.width
        below = sheet.convert("L").crop((0, photo.height, sheet.width, sheet.height))
        assert below.height > 30
        assert below.getextrema()[0] < 100


def test_a_drawing_folder_that_cannot_be_made_is_status_2(bundle: Path) -> None:
    result = caption(bundle, "--draw", CAT / "below", CAT)
    assert (result.status, result.out, len(result.complaints)) == (2, b"", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_one_line(bundle: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("caption", "--model", bundle, CAT),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.decode().startswith("capsmith: cannot go on: ")
    assert done.stderr.count(b"\n") == 1


def test_help_version_and_completion() -> None:
    from capsmith import __version__

    assert capsmith("--version").lines == [f"capsmith {__version__}"]
    assert capsmith().lines == capsmith("--help").lines
    listed = "\n".join(capsmith("--help").lines)
    assert all(word in listed for word in ("caption", "models", "check", "--install-completion"))
    script = capsmith(
        "--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    )
    assert "_CAPSMITH_COMPLETE=complete_bash" in script.out.decode()
    completed = capsmith(
        env={
            "_CAPSMITH_COMPLETE": "complete_bash",
            "COMP_WORDS": "capsmith caption --cont",
            "COMP_CWORD": "2",
        }
    )
    assert completed.lines == ["--contrastive"]


def test_drawings_never_take_the_place_of_photos(bundle: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "below/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(EXAMPLES / "cat.jpg", tmp_path / name)
    for photos in (tmp_path, tmp_path / "a.jpg"):
        result = caption(bundle, "--draw", tmp_path, photos)
        assert result.status == 2
        (told,) = result.complaints
        assert "drawings would take the place of photos" in told
    before = (EXAMPLES / "cat.jpg").read_bytes()
    assert all(path.read_bytes() == before for path in tmp_path.rglob("*.jpg"))


def test_a_folder_without_photos_says_so(bundle: Path, tmp_path: Path) -> None:
    result = caption(bundle, tmp_path)
    assert (result.status, result.lines) == (0, [])
    assert result.complaints == ["capsmith: found no photo"]


def test_the_embedded_captioner_takes_a_prompt() -> None:
    result = capsmith("caption", "--prompt", "two dogs", EXAMPLES / "cat.jpg")
    assert result.status == 0, result.complaints
    assert result.lines[0].split("\t")[1].startswith("Two dogs ")
