"""`capsmith train` from photos to a bundle, stopped and gone on, at toy size."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import safetensors.torch
import torch

import capsmith
from capsmith.errors import BundleError, ConfigError
from capsmith.models.engine import TorchEngine
from capsmith.runtime.decoding import decode
from capsmith.runtime.rules import Rules
from capsmith.training import checkpoint
from capsmith.training.best import export_run
from capsmith.training.config import read_recipe
from capsmith.training.run import Outcome, train
from tests import runs
from tests.integration.command import capsmith as run_command
from tests.integration.command import command, environment

pytestmark = pytest.mark.slow

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    runs.write_data(folder)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    """A run of the recipe as it is."""
    lines: list[str] = []
    recipe = read_recipe(runs.write_recipe(data))
    outcome = train(recipe, data / "trained", base=data, log=lines.append)
    assert outcome.bundle == data / "trained" / "best"
    assert any("best so far" in line for line in lines)
    return data / "trained"


def go(trained: Path, name: str, **sections: Any) -> tuple[Path, Outcome]:
    """Train a changed recipe in this process, on what `trained` has encoded and exported."""
    base = trained.parent
    features = {"store": "trained/features", **sections.pop("features", {})}
    path = runs.write_recipe(base, f"{name}.yaml", features=features, **sections)
    return base / name, proceed(path)


def proceed(path: Path) -> Outcome:
    output = path.with_suffix("")
    output.mkdir(exist_ok=True)
    return train(read_recipe(path), output, base=path.parent, log=silent)


def silent(line: str) -> None:
    """A log that says nothing."""


def weights(path: Path) -> Weights:
    return safetensors.torch.load_file(path)


def assert_equal(one: Weights, other: Weights) -> None:
    assert one.keys() == other.keys()
    different = [name for name, tensor in one.items() if not tensor.equal(other[name])]
    assert not different


def test_a_run_leaves_a_bundle_that_captions_and_all_that_people_look_at(trained: Path) -> None:
    done = run_command("caption", "--model", trained / "best", trained.parent / "12.jpg")
    assert done.status == 0, done.complaints
    assert done.lines[0].endswith(".")
    bundle = capsmith.load(trained / "best").bundle
    assert bundle.name == "tiny"
    assert "CIDEr-D" in bundle.provenance["validation"]
    card = (trained / "best" / "README.md").read_text()
    assert "12 photos with 24 captions of: captions.csv" in card
    assert "On 4 photos of its validation split" in card
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    rows = runs.metrics(trained)
    assert {row["step"] for row in rows if "cider" in row} == {3, 6}
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]


def test_tensorboard_has_losses_scores_captions_and_photos(trained: Path) -> None:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = loading.EventAccumulator(str(trained / "logs"))
    events.Reload()
    tags = events.Tags()
    assert {"captions/captions", "captions/learning_rate", "val/loss", "val/cider"} <= set(
        tags["scalars"]
    )
    assert [event.step for event in events.Scalars("val/cider")] == [3, 6]
    assert tags["images"] == ["photos/0"]
    assert any("captions/0" in tag for tag in tags["tensors"])


@pytest.mark.ci
def test_the_same_recipe_gives_the_same_weights(trained: Path) -> None:
    first = weights(trained / "best.safetensors")
    again = trained.parent / "again"
    again.mkdir()
    recipe = read_recipe(trained.parent / "tiny.yaml")
    train(recipe, again, base=trained.parent, log=silent)
    assert_equal(weights(again / "best.safetensors"), first)
    assert runs.metrics(again) == runs.metrics(trained)


def test_a_finished_run_stays_as_it_is(trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (trained / "best").iterdir()}
    done = run_command("train", trained.parent / "tiny.yaml", "-o", trained)
    assert (done.status, done.complaints) == (0, [])
    best = max(float(row["cider"]) for row in runs.metrics(trained) if "cider" in row)
    assert done.lines[-1].startswith(f"{trained / 'best'}: CIDEr {best:.3f} at step ")
    assert {path: path.stat().st_mtime_ns for path in (trained / "best").iterdir()} == before


def test_a_run_of_another_recipe_is_refused(trained: Path) -> None:
    recipe = read_recipe(trained.parent / "tiny.yaml", ["training.batch=4"])
    with pytest.raises(ConfigError, match="holds a run of another recipe"):
        train(recipe, trained, base=trained.parent, log=silent)


def test_the_bundle_captions_as_the_modules_do(trained: Path) -> None:
    from capsmith.training.assembly import put_together

    known = checkpoint.read_run(trained)
    assembly = put_together(known.recipe, known.tokens, base=trained.parent)
    checkpoint.load_weights(assembly.model, trained / "best.safetensors")
    model = assembly.model.eval()
    captioner = capsmith.load(trained / "best")
    features = captioner.encode([trained.parent / name for name in runs.names()])
    with torch.no_grad():
        prefix = model.mapper(torch.from_numpy(features)).numpy()
    language_model = captioner.bundle.language_model
    rules = Rules(
        prompt=language_model.start_tokens,
        stop=frozenset(language_model.stop_tokens),
        never=frozenset(language_model.never_tokens),
        max_tokens=8,
    )
    engine = TorchEngine(model.reader, vocab_size=model.reader.vocab_size)
    expected = [rows[0] for rows in decode(engine, prefix, capsmith.Greedy(), rules)]
    found = captioner.caption_features(features)
    assert [caption.token_ids for caption in found] == [row.token_ids for row in expected]
    for caption, row in zip(found, expected, strict=True):
        assert caption.logprob == pytest.approx(row.logprob, abs=1e-3)


def test_runs_are_exported_with_fewer_bits(trained: Path, tmp_path: Path) -> None:
    done = run_command("export", trained, tmp_path / "int8", "--bits", "8")
    assert done.status == 0, done.complaints
    assert any("largest difference of a logit" in line for line in done.lines)
    export_run(trained, tmp_path / "int4", precision="int4")
    for precision in ("int8", "int4"):
        captioner = capsmith.load(tmp_path / precision)
        assert captioner.bundle.language_model.precision == precision
        assert captioner.caption(trained.parent / "12.jpg").text
    with pytest.raises(BundleError, match="int4"):
        export_run(trained, tmp_path / "int4", precision="int4")


def test_what_cannot_be_exported_is_one_line(trained: Path, tmp_path: Path) -> None:
    for run, arguments, status, message in (
        (tmp_path, (), 3, "is no run of capsmith train"),
        (trained, ("--bits", "5"), 2, "--bits 5: use 32, 8 or 4"),
    ):
        done = run_command("export", run, tmp_path / "bundle", *arguments)
        assert (done.status, len(done.complaints)) == (status, 1)
        assert message in done.complaints[0]
    assert not (tmp_path / "bundle").exists()


STOPPED = {
    "training": {"steps": 40, "accumulate": 2, "average": 0.9, "batch": 4, "warmup": 5},
    "self_critical": {"steps": 12, "batch": 4, "captions": 3, "blend": 0.6},
    "validation": {"every": 100, "checkpoint_every": 3, "samples": 0},
}


def kill_when(arguments: list[Any], begun: Path, pattern: str) -> None:
    """Start `capsmith train` and kill it as soon as a file or folder is there."""
    with subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 900
        while not list(begun.glob(pattern)):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.ci
def test_killed_runs_end_as_if_they_had_never_stopped(trained: Path) -> None:
    whole, _ = go(trained, "whole", **STOPPED)
    features = {"store": "trained/features"}
    path = runs.write_recipe(trained.parent, "stopped.yaml", features=features, **STOPPED)
    stopped = trained.parent / "stopped"
    stopped.mkdir()
    arguments = ["train", path, "-o", stopped]
    kill_when(arguments, stopped, "recipe.json")
    kill_when(arguments, stopped, "checkpoints/captions-0000003")
    assert not (stopped / "checkpoints" / "captions-0000040").exists()
    kill_when(arguments, stopped, "checkpoints/reward-0000003")
    assert not (stopped / "checkpoints" / "reward-0000012").exists()
    proceed(path)
    assert runs.metrics(stopped) == runs.metrics(whole)
    for name in ("captions-0000040", "reward-0000012"):
        saved = Path("checkpoints", name, "captioner.safetensors")
        assert_equal(weights(stopped / saved), weights(whole / saved))
    assert_equal(weights(stopped / "best.safetensors"), weights(whole / "best.safetensors"))
    assert not list(stopped.rglob("*.tmp"))


def test_training_ends_early_without_progress(trained: Path) -> None:
    run, outcome = go(
        trained,
        "patient",
        training={"steps": 50, "learning_rate": 1e-9},
        validation={"every": 2, "patience": 3},
    )
    assert [row["step"] for row in runs.metrics(run) if "cider" in row] == [2, 4, 6, 8]
    assert outcome.best_step == 2


def test_the_second_stage_is_blended_with_the_first(trained: Path) -> None:
    run, _ = go(
        trained,
        "blended",
        training={"steps": 4},
        self_critical={
            "steps": 4, "batch": 6, "captions": 3, "blend": 0.0, "learning_rate": 0.05,
        },
    )  # fmt: skip
    rows = runs.metrics(run)
    first = max((row for row in rows if "cider" in row and row["stage"] == "captions"),
                key=lambda row: float(row["cider"]))  # fmt: skip
    second = next(row for row in rows if "cider" in row and row["stage"] == "reward")
    assert second["val_loss"] == first["val_loss"]
    own = weights(run / "checkpoints" / "reward-0000004" / "captioner.safetensors")
    before = weights(run / "first-stage.safetensors")
    assert any(not tensor.equal(before[name]) for name, tensor in own.items())


def test_lower_precision_trains(trained: Path) -> None:
    run, _ = go(trained, "bf16", training={"steps": 2, "precision": "bf16"},
                self_critical={"steps": 1, "batch": 4, "captions": 2})  # fmt: skip
    assert len([row for row in runs.metrics(run) if "loss" in row]) == 2


def test_an_encoder_trains_from_pixels(trained: Path) -> None:
    from capsmith.models.encoder_names import EncoderSpec, open_encoder

    run, _ = go(
        trained,
        "pixels",
        features={"source": "pixels", "store": "", "augment": True, "workers": 1},
        training={"policy": "all", "steps": 2, "batch": 4, "encoder_pace": 0.5},
    )
    before = open_encoder(EncoderSpec(family="shipped")).state_dict()
    after = weights(run / "best.safetensors")
    changed = [
        name for name, tensor in before.items() if not after[f"encoder.{name}"].equal(tensor)
    ]
    assert len(changed) > len(before) // 3
    done = run_command("caption", "--model", run / "best", trained.parent / "12.jpg")
    assert done.status == 0, done.complaints


def test_two_languages_have_their_tokens(trained: Path) -> None:
    base = trained.parent
    german = "".join(
        f"{name},zwei hunde am strand {i % 3}\n" for i, name in enumerate(runs.names())
    )
    (base / "german.csv").write_text("image,caption\n" + german)
    sources = [
        {"path": name, "language": language, "splits": {"train": "train.txt", "val": "val.txt"}}
        for name, language in (("german.csv", "de"), ("captions.csv", "en"))
    ]
    run, _ = go(trained, "languages", data={"sources": sources},
                training={"steps": 80, "learning_rate": 0.02})  # fmt: skip
    assert capsmith.load(run / "best").bundle.languages == ("de", "en")
    said = {}
    for language in ("de", "en"):
        done = run_command(
            "caption",
            "--model",
            run / "best",
            "--lang",
            language,
            base / "12.jpg",
            base / "13.jpg",
        )
        assert done.status == 0, done.complaints
        said[language] = " ".join(done.lines).lower()
    assert "hunde" in said["de"]
    assert "hunde" not in said["en"]
    further, _ = go(trained, "further", start=str(run), training={"steps": 2},
                    self_critical={"steps": 1, "batch": 4, "captions": 2})  # fmt: skip
    assert capsmith.load(further / "best").bundle.languages == ("de", "en")
    assert any("cider" in row for row in runs.metrics(further))


def test_several_processes_train_one_captioner(trained: Path) -> None:
    path = runs.write_recipe(trained.parent, "processes.yaml", training={"steps": 4})
    output = trained.parent / "processes"
    output.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu",
         "-m", "capsmith", "train", path, "-o", output],
        env=environment({"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}),
        capture_output=True, timeout=1200, check=False,
    )  # fmt: skip
    if b"gloo" in done.stderr and b"connect" in done.stderr:
        pytest.skip("no connection between processes here")
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert done.stdout.decode().count("best so far") >= 1
    steps = [(row["step"], "cider" in row) for row in runs.metrics(output)]
    assert len(steps) == len(set(steps))
    assert (
        json.loads((output / "checkpoints/captions-0000004/standing.json").read_text())["step"] == 4
    )
    assert capsmith.load(output / "best").caption(trained.parent / "12.jpg").text
