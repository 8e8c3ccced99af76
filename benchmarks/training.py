"""Training steps a second: the trainer's own batches, and padding every caption to the longest.

The model and optimiser of `recipes/clipcap-coco.yaml` on both sides, with random weights and random
embeddings in place of a store's. The other side is the loop of ClipCap (Mokady et al. 2021): every
caption is padded to min(mean + 10 deviations, longest) tokens, logits are computed at every
position, and the loss ignores the padding.

    python -m benchmarks.training ours|padded CAPTIONS THREADS

takes a few steps of one side alone, for its peak memory.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import bar
from capsmith.data.manifest import Manifest
from capsmith.data.sources import DataSource, read_data
from capsmith.models.caption_model import CaptionModel
from capsmith.training.assembly import Assembly, assemble
from capsmith.training.batches import Batches
from capsmith.training.config import Training, read_recipe
from capsmith.training.examples import Draw, Examples, Order, tokenise
from capsmith.training.loop import Stage, StageRun
from capsmith.training.objectives import CaptionObjective
from capsmith.training.schedule import Schedule, parameter_groups

RECIPE = Path(__file__).parents[1] / "recipes" / "clipcap-coco.yaml"
LEAST = 2.0
_FOREVER = 1 << 30


@dataclass(frozen=True, slots=True)
class RandomInputs:
    """Embeddings float32 (photos, 1, d) that belong to no photo."""

    rows: Tensor

    def __call__(self, examples: Examples, draw: Draw, seed: tuple[int, ...]) -> Tensor:  # noqa: ARG002
        return self.rows[list(draw.photos)]


@dataclass(frozen=True, slots=True)
class Setup:
    """What both sides share."""

    assembly: Assembly
    examples: Examples
    inputs: RandomInputs

    @property
    def model(self) -> CaptionModel:
        return self.assembly.model

    @property
    def training(self) -> Training:
        return self.assembly.recipe.training


class Ours:
    """The trainer's loop, stage and batches, one step at a time."""

    def __init__(self, setup: Setup):
        training = setup.training
        self.order = Order(
            setup.examples, batch=training.batch, captions_a_photo=training.captions_a_photo,
            seed=training.seed,
        )  # fmt: skip
        self.batches = Batches(self.order, setup.inputs, setup.model)
        stage = Stage(
            name="captions",
            objective=CaptionObjective(setup.model, label_smoothing=training.label_smoothing),
            batches=self.batches,
            steps=_FOREVER,
            learning_rate=training.learning_rate,
            schedule=Schedule(steps=_FOREVER, warmup=training.warmup, shape=training.schedule),
            average=training.average,
            clip=training.clip,
            weight_decay=training.weight_decay,
            betas=training.betas,
        )
        self._run = StageRun(stage, Accelerator(cpu=True))

    def step(self, number: int) -> None:
        """Read batch `number` and train on it."""
        self._run.progress.step = number
        self._run.run(lambda *_: False)

    def lengths(self) -> np.ndarray:
        """Padded length of every batch of the first epoch, start and end tokens included."""
        added = len(self.batches[0].tokens[0]) - self._longest(0)
        return np.array([self._longest(i) + added for i in range(self.order.steps_per_epoch)])

    def _longest(self, number: int) -> int:
        lines = self.order.examples.lines
        return max(len(lines[i].ids) for i in self.order.draw(number).lines)


class Padded:
    """The original's loop around the same model."""

    def __init__(self, setup: Setup):
        self.model, self.training = setup.model, setup.training
        lines = setup.examples.lines
        lengths = torch.tensor([len(line.ids) for line in lines], dtype=torch.float32)
        self.length = min(int(lengths.mean() + 10 * lengths.std()), int(lengths.max()))
        self.tokens = torch.full((len(lines), self.length), -1)
        for row, line in zip(self.tokens, lines, strict=True):
            ids = line.ids[: self.length]
            row[: len(ids)] = torch.tensor(ids)
        self.features = setup.inputs.rows[[line.photo for line in lines]]
        groups = parameter_groups(
            self.model, None, learning_rate=self.training.learning_rate, pace=1.0,
            decay=self.training.weight_decay,
        )  # fmt: skip
        self.optimizer = torch.optim.AdamW(groups, betas=self.training.betas, fused=True)
        self.draw = torch.Generator().manual_seed(0)

    def step(self) -> None:
        """Train on a random batch."""
        model = self.model.train()
        chosen = torch.randperm(len(self.tokens), generator=self.draw)[: self.training.batch]
        tokens = self.tokens[chosen]
        prefix = model.mapper(self.features[chosen])
        hidden = model.reader.hidden(tokens.clamp(min=0), prefix, torch.arange(len(tokens)))
        logits = model.reader.head(hidden)[:, prefix.shape[1] - 1 : -1]
        loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=-1)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()


def set_up(captions: Path) -> Setup:
    """The recipe's captioner with random weights, and the captions to train on as its tokens."""
    torch.manual_seed(0)
    manifest = read_data([DataSource(path=str(captions))])
    photos = tuple(photo for photo in manifest.photos if photo.split in ("train", ""))
    assembly = assemble(read_recipe(RECIPE), Manifest(photos), base=RECIPE.parent, is_dry=True)
    examples = tokenise(photos, assembly.tokens, max_tokens=0, positions=None)
    embeddings = torch.randn(len(photos), 1, assembly.model.mapper.config.input_width)
    return Setup(assembly, examples, RandomInputs(embeddings))


def run(captions: Path, *, threads: int, steps: int) -> None:
    """Print the table of both sides."""
    peaks = {side: _peak(side, captions, threads) for side in ("ours", "padded")}
    torch.set_num_threads(threads)
    setup = set_up(captions)
    ours, padded = Ours(setup), Padded(setup)
    lengths = ours.lengths()
    numbers = _spread(lengths, steps)
    times = _interleaved([lambda n=n: ours.step(n) for n in numbers], padded.step)  # type: ignore[misc]
    _print_head(setup, steps)
    rows = setup.training.batch
    rates = {name: rows * steps / sum(seconds) for name, seconds in times.items()}
    for name, length, note in (
        ("ours", lengths.mean(), f"of the steps measured {lengths[numbers].mean():.1f}"),
        ("padded", padded.length, f"to min(mean + 10 deviations, longest) = {padded.length}"),
    ):
        print(
            f"  {name:8s}{rates[name]:7.2f} captions/s, {np.median(times[name]):5.2f} s a step"
            f" (median), {length:4.1f} tokens a caption ({note}), peak memory {peaks[name]:,.0f} MB"
        )
    print(f"  ours against padding to the longest: {bar(rates['ours'] / rates['padded'], LEAST)}")


def _print_head(setup: Setup, steps: int) -> None:
    recipe, tokens = setup.assembly.recipe, setup.assembly.tokens
    count = sum(parameter.numel() for parameter in setup.model.parameters())
    which = "GPT-2's" if not tokens.start else "a BPE of the captions, GPT-2's is not on this disk"
    print(
        f"\ntraining {recipe.mapper['kind']} + {recipe.language_model['pretrained']}, {count:,}"
        f" parameters, batch {setup.training.batch}, {len(setup.examples.lines):,} captions,"
        f" {steps} steps of each in turn after 1\n"
        f"  tokenizer: {which}, {tokens.vocab_size:,} tokens; weights, gradients and AdamW's"
        f" moments are {16 * count / 1e6:,.0f} MB of either side"
    )


def _spread(lengths: np.ndarray, count: int) -> list[int]:
    """Batches at evenly spaced quantiles of the padded length, so that a few stand for all."""
    order = np.argsort(lengths, kind="stable")
    places = ((np.arange(count) + 0.5) / count * len(order)).astype(int)
    chosen = [int(order[place]) for place in places]
    return [int(i) for i in np.random.default_rng(0).permutation(chosen)]


def _interleaved(
    ours: Sequence[Callable[[], None]], padded: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of each step, one of each side in turn; a first one of each is not counted."""
    seconds: dict[str, list[float]] = {"ours": [], "padded": []}
    for turn, step in enumerate([ours[0], *ours]):
        for name, run in (("ours", step), ("padded", padded)):
            begin = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def _peak(side: str, captions: Path, threads: int) -> float:
    """Peak memory in MB of a process that takes steps of one side."""
    command = [sys.executable, "-m", "benchmarks.training", side, str(captions), str(threads)]
    measured = subprocess.run(
        [sys.executable, "-m", "benchmarks.shell", *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    _, peak, line = measured.stdout.rstrip("\n").split("\t", 2)
    if line != side:
        raise SystemExit(f"no steps from {' '.join(command)}")
    return float(peak)


def main() -> None:
    side, captions, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    setup = set_up(Path(captions))
    if side == "ours":
        ours = Ours(setup)
        ours.step(0)
        ours.step(int(ours.lengths().argmax()))  # the worst case of the epoch
    else:
        padded = Padded(setup)
        padded.step()
        padded.step()
    print(side)


if __name__ == "__main__":
    main()
