"""What a recipe would do, without doing it: shapes, parameters, memory, steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from capsmith.data.manifest import Manifest, Photo
from capsmith.data.photos import PhotoBytes
from capsmith.data.rows import CaptionLine, Place
from capsmith.errors import DataError
from capsmith.models.policies import trainable_names
from capsmith.training.assembly import Assembly, assemble
from capsmith.training.config import Recipe
from capsmith.training.examples import Order, tokenise
from capsmith.training.splits import read_splits

_STAND_IN = (
    "a dog runs along the beach with a ball in its mouth",
    "two women sit on a bench under a tree",
    "a man in a red shirt rides his bicycle down the street",
)
_TOKENS = 12


def dry_run(recipe: Recipe, *, base: Path) -> Iterator[str]:
    """Lines that say what training would be; no weight is loaded or made, nothing is downloaded.

    Where the data is not there, a few built-in captions stand for it, and the steps are not known.
    Raises `ConfigError` for parts that do not fit together.
    """
    train, missing = _data(recipe, base)
    with torch.device("meta"):
        assembly = assemble(recipe, train, base=base, is_dry=True)
    yield f"recipe     {recipe.name}"
    if missing:
        yield f"data       not read ({missing}); {len(_STAND_IN)} built-in captions stand for it"
    else:
        yield f"data       {len(train.photos):,} photos with {_captions(train):,} captions"
    yield _tokens_line(assembly)
    yield from _model_lines(assembly)
    yield from _cost_lines(assembly, None if missing else train)


def _data(recipe: Recipe, base: Path) -> tuple[Manifest, str]:
    try:
        return read_splits(recipe.data, base)[0], ""
    except DataError as error:
        place = Place(Path("built-in"))
        lines = _STAND_IN * recipe.tokenizer.least_seen
        stand_in = tuple(CaptionLine(text=text, language="en", place=place) for text in lines)
        photo = Photo(id="built-in", source=PhotoBytes(place.path), captions=stand_in)
        return Manifest((photo,)), str(error)


def _captions(train: Manifest) -> int:
    return sum(len(photo.captions) for photo in train.photos)


def _tokens_line(assembly: Assembly) -> str:
    wanted, tokens = assembly.recipe.tokenizer, assembly.tokens
    line = f"tokenizer  {wanted.kind}, {tokens.vocab_size:,} tokens"
    if wanted.kind == "pretrained" and tokens.start:
        return f"{line}: a BPE of the captions, as {wanted.name} is not on this disk"
    return line


def _model_lines(assembly: Assembly) -> Iterator[str]:
    recipe, model, description = assembly.recipe, assembly.model, assembly.description
    encoder, prefix, seen = assembly.encoder, description.prefix, description.preprocessing
    yield (
        f"encoder    {encoder.name}: pixels 3 x {seen.height} x {seen.width} -> features"
        f" {encoder.rows} x {encoder.width}, {_count(encoder):,} parameters"
    )
    yield (
        f"mapper     {recipe.mapper['kind']}: prefix {prefix.rows} x {prefix.width},"
        f" {_count(model.mapper):,} parameters"
    )
    name = recipe.language_model.get("pretrained", recipe.language_model.get("kind"))
    with torch.device("meta"):
        features = torch.zeros(2, encoder.rows, encoder.width)
        length = model.prompt_length + _TOKENS + 1
        tokens = torch.zeros(2, length, dtype=torch.int64)
        logits = model(features, tokens, torch.ones(2, length, dtype=torch.bool))
    yield (
        f"language   {name}: {description.language_model.vocab_size:,} tokens,"
        f" {_count(model.language_model):,} parameters; logits of {_TOKENS} words"
        f" {tuple(logits.shape[1:])}"
    )


def _cost_lines(assembly: Assembly, train: Manifest | None) -> Iterator[str]:
    recipe, model, training = assembly.recipe, assembly.model, assembly.recipe.training
    names = trainable_names(model)
    trained = sum(p.numel() for name, p in model.named_parameters() if name in names)
    copies = 3 + (training.average > 0)  # gradient, two moments of Adam, the average
    size = 4 * (_count(model) + copies * trained)
    yield f"trains     {training.policy}: {trained:,} of {_count(model):,} parameters"
    yield f"memory     {size / 1e9:.2f} GB for weights, gradients, optimiser; activations besides"
    batch = f"batches of {training.batch}"
    if training.accumulate > 1:
        batch += f" x {training.accumulate}"
    if train is None and not training.steps:
        yield f"steps      {training.epochs} epochs in {batch}"
        return
    steps = training.steps
    if train is not None and not steps:
        examples = tokenise(
            train.photos, assembly.tokens, max_tokens=recipe.data.max_tokens, positions=None
        )
        order = Order(
            examples, batch=training.batch, captions_a_photo=training.captions_a_photo, seed=0
        )
        steps = training.epochs * max(1, order.steps_per_epoch // training.accumulate)
    yield f"steps      {steps:,} in {batch}, {training.warmup:,} of them warm-up"


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
