"""Checkpoints: folders that hold all that a run needs to go on, or to be exported.

RUN/recipe.json and RUN/tokenizer.json stay as they are for the whole run; RUN/checkpoints/ holds
the state after some step, whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import tokenizers
import torch
from accelerate import Accelerator

from capsmith import atomic, strict_json
from capsmith.errors import CheckpointError
from capsmith.models.caption_model import CaptionModel
from capsmith.training.config import Recipe, parse_recipe
from capsmith.training.vocabulary import CaptionTokens

_MAX_BYTES = 10_000_000
STAGES = ("captions", "reward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a run is: steps done of each stage, its best score, validations since then."""

    stage: str
    step: int
    best: float = -1.0
    best_step: int = 0
    stale: int = 0
    is_finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Which tokens of `tokenizer.json` are special, the languages of the captions, and the folder
    that the recipe's paths are relative to, seen from the run's; see `CaptionTokens`."""

    start: tuple[int, ...]
    end: int
    never: tuple[int, ...]
    spoken: tuple[str, ...]
    languages: Mapping[str, int]
    recipe_folder: str
    details: Mapping[str, int] = field(default_factory=dict)


def write_run(folder: Path, recipe: Recipe, tokens: CaptionTokens, base: Path) -> None:
    """Begin a run's folder; `base` is the folder that the recipe's paths are relative to."""
    folder.mkdir(parents=True, exist_ok=True)
    place = os.path.relpath(base.resolve(), folder.resolve())
    facts = RunFacts(
        start=tokens.start, end=tokens.end, never=tokens.never, spoken=tokens.spoken,
        languages=tokens.languages,
        recipe_folder=place, details=tokens.details,
    )  # fmt: skip
    atomic.write_text(folder / "tokenizer.json", tokens.tokenizer.to_str())
    atomic.write_text(folder / "run.json", json.dumps(asdict(facts), indent=1) + "\n")
    atomic.write_text(folder / "recipe.json", json.dumps(recipe.to_dict(), indent=1) + "\n")


def is_run(folder: Path) -> bool:
    """Whether a run was begun in the folder."""
    return (folder / "recipe.json").is_file()


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that was begun: its recipe, the folder of the recipe's paths, its tokens."""

    recipe: Recipe
    base: Path
    tokens: CaptionTokens


def read_run(folder: Path) -> KnownRun:
    """Read what `write_run` wrote; raises `CheckpointError`."""
    recipe_file, facts_file = folder / "recipe.json", folder / "run.json"
    try:
        recipe = parse_recipe(
            strict_json.read_object(recipe_file, max_bytes=_MAX_BYTES), recipe_file
        )
        facts = strict_json.parse(
            RunFacts, strict_json.read_object(facts_file, max_bytes=_MAX_BYTES)
        )
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{folder}: is no run of capsmith train ({error.filename}: {error.strerror}); give the"
            " folder that --output named"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}; it was changed, train again") from None
    tokenizer = tokenizers.Tokenizer.from_str(text)
    tokens = CaptionTokens(
        tokenizer=tokenizer,
        text=recipe.text,
        start=facts.start,
        end=facts.end,
        never=facts.never,
        spoken=facts.spoken,
        languages=facts.languages,
        details=facts.details,
        language_text=recipe.language_text,
    )
    return KnownRun(recipe, folder / facts.recipe_folder, tokens)


def latest(folder: Path) -> tuple[Path, Standing] | None:
    """The newest checkpoint of a run."""
    found = sorted((folder / "checkpoints").glob("[cr]*-[0-9]*"), key=_rank)
    if not found:
        return None
    path = found[-1] / "standing.json"
    try:
        standing = strict_json.parse(Standing, strict_json.read_object(path, max_bytes=_MAX_BYTES))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; delete its folder to go on from earlier") from None
    return found[-1], standing


def _rank(path: Path) -> tuple[int, int]:
    stage, _, step = path.name.rpartition("-")
    return STAGES.index(stage), int(step)


def save(
    folder: Path, standing: Standing, accelerator: Accelerator, *, weights: dict[str, torch.Tensor]
) -> None:
    """Write a checkpoint; the one before the last of the same stage is deleted.

    weights: of the captioner, as they are validated and exported. All processes call it.
    """
    path = folder / "checkpoints" / f"{standing.stage}-{standing.step:07d}"
    if path.exists():
        return
    earlier = sorted(path.parent.glob(f"{standing.stage}-[0-9]*"), key=_rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.tmp"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    accelerator.wait_for_everyone()
    with writing(path):
        accelerator.save_state(str(temporary / "state"), safe_serialization=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with writing(path):
            safetensors.torch.save_file(weights, temporary / "captioner.safetensors")
        text = json.dumps(asdict(standing), indent=1) + "\n"
        atomic.write_text(temporary / "standing.json", text)
        atomic.publish_folder(temporary, path)
        for old in earlier[:-1]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context in which a full disk is an `OSError`, whichever library writes to it."""
    try:
        yield
    except (RuntimeError, safetensors.SafetensorError) as error:
        line = " ".join(str(error).split())[:200]
        raise OSError(f"{path}: cannot be written ({line}); make room and run again") from None


def first_stage(folder: Path) -> Path:
    """The best weights of the first stage, kept when the second begins, which finds better ones."""
    path = folder / "first-stage.safetensors"
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        shutil.copyfile(folder / "best.safetensors", temporary)
        temporary.replace(path)
    return path


def weights_of(model: CaptionModel) -> dict[str, torch.Tensor]:
    """The captioner's weights by name, each tensor on its own."""
    state = model.state_dict()
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in state.items()}  # fmt: skip


def load_weights(model: CaptionModel, path: Path) -> None:
    """Fill a captioner with the weights of a file; raises `CheckpointError`."""
    try:
        weights: dict[str, Any] = safetensors.torch.load_file(path)
        model.load_state_dict(weights)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        line = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: cannot be loaded ({line}); train on, or choose another run"
        ) from None
