"""What a run leaves for people: metrics line by line, a picture of its curves, a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capsmith import atomic
from capsmith.data.manifest import Manifest
from capsmith.models.caption_model import CaptionModel
from capsmith.models.policies import trainable_names
from capsmith.training.config import Recipe
from capsmith.training.validation import Score

Row = Mapping[str, Any]


class Metrics:
    """`metrics.jsonl`: what was measured at which step of which stage; grows with the run.

    Of several processes the main one alone writes.
    """

    def __init__(self, path: Path, *, writes: bool = True):
        self.path, self.writes = path, writes
        self.rows: list[Row] = []

    def keep_until(self, done: Mapping[str, int]) -> None:
        """Read what an earlier process wrote, but for what it did after its last checkpoint.

        done: stage -> steps that are in the checkpoint.
        """
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            found = [json.loads(line) for line in lines if line.endswith("}")]
            self.rows = [row for row in found if row["step"] <= done.get(row["stage"], 0)]
        if self.writes:
            text = "".join(json.dumps(row) + "\n" for row in self.rows)
            atomic.write_text(self.path, text)

    def add(self, **row: Any) -> None:
        """Write one measurement more."""
        self.rows.append(row)
        if self.writes:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def draw_curves(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """A PNG of loss, learning rate and CIDEr over the steps of all stages, one after another."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = (("loss", ("loss", "val_loss")), ("learning rate", ("learning_rate",)),
              ("CIDEr", ("cider",)))  # fmt: skip
    figure, axes = pyplot.subplots(1, len(panels), figsize=(10, 2.8), layout="constrained")
    at = _positions(rows)
    for axis, (label, names) in zip(axes, panels, strict=True):
        for name in names:
            points = [(x, row[name]) for x, row in zip(at, rows, strict=True) if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), label=name.replace("_", " "), linewidth=1)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(frameon=False)
    figure.suptitle(title)
    with atomic.open_file(path) as file:
        figure.savefig(file, format="png", dpi=90)
    pyplot.close(figure)


def _positions(rows: Sequence[Row]) -> list[int]:
    """The step of each row, counted through the stages."""
    lengths: dict[str, int] = {}
    for row in rows:
        lengths[row["stage"]] = max(lengths.get(row["stage"], 0), row["step"])
    begins, total = {}, 0
    for stage, length in lengths.items():
        begins[stage] = total
        total += length
    return [begins[row["stage"]] + row["step"] for row in rows]


def model_card(recipe: Recipe, train: Manifest, model: CaptionModel, score: Score | None) -> str:
    """The README.md of a bundle: what it was made of and how well it does, in Markdown."""
    parameters = sum(p.numel() for p in model.parameters())
    names = trainable_names(model)
    trained = sum(p.numel() for name, p in model.named_parameters() if name in names)
    captions = sum(len(photo.captions) for photo in train.photos)
    sources = ", ".join(Path(source.path).name for source in recipe.data.sources)
    encoder = recipe.encoder
    lines = [
        f"# {recipe.name}",
        "",
        "An image captioner, made by `capsmith train`.",
        "",
        f"* Encoder: {encoder.family} {encoder.name}".rstrip(),
        f"* Mapper: {recipe.mapper['kind']}",
        "* Language model: "
        + str(recipe.language_model.get("pretrained", recipe.language_model.get("kind"))),
        f"* Parameters beside the encoder: {parameters:,}, trained: {trained:,}",
        f"* Trained on {len(train.photos):,} photos with {captions:,} captions of: {sources}",
        f"* Licence: {recipe.licence}",
    ]
    if score is not None:
        result = score.report
        lines += [
            "",
            (
                f"On {result.photos} photos of its validation split: CIDEr-D"
                f" {result.cider.value:.3f} (95 % interval {result.cider.low:.3f} to"
                f" {result.cider.high:.3f}), BLEU-4 {result.bleu[3].value:.3f},"
                f" {result.distinct_share:.0%} of the captions distinct."
                " The best step was chosen on these photos."
            ),
        ]
    lines += [
        "",
        (
            "It describes what its training photos showed and words their captions had; it is wrong"
            " often, and must not be relied on where a wrong caption does harm."
        ),
        "",
    ]
    return "\n".join(lines)
