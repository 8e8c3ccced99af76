"""Train the embedded captioner on stored features.

    python recipes/embedded/train.py DATA STORE RUN [--set name=value ...]

Two stages: cross entropy on captions, with and without photos, then self-critical training on
CIDEr-D. `RUN/words.pt` and `RUN/reward.pt` are their checkpoints; a stopped run goes on from them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import photos
import words
from build import Settings, Store, build, describe, read_settings, training_captions, training_texts
from capsmith.evaluate.lexical import CiderD
from capsmith.models.engine import TorchEngine
from capsmith.models.prefix_captioner import PrefixCaptioner
from capsmith.runtime.decoding import decode
from capsmith.training.loop import Schedule, fit, parameter_groups
from capsmith.training.self_critical import self_critical_loss
from capsmith.types import Beam
from features import published_encoder


class Batches:
    """Draws photos with captions, and captions without photos, as token ids."""

    def __init__(
        self, data: Path, store: Store, settings: Settings, vocabulary: list[str],
        device: torch.device,
    ):  # fmt: skip
        self.store, self.settings, self.device = store, settings, device
        self.index = {word: number for number, word in enumerate(vocabulary)}
        self.photos: list[tuple[str, int, list[list[int]]]] = []
        for name, captions in training_captions(data).items():
            for row, photo in enumerate(store.names[name]):
                self.photos.append((name, row, [self.encode(line) for line in captions[photo]]))
        self.texts = [self.encode(line) for line in training_texts(data)]
        hint_words, _ = words.class_words(vocabulary)
        self.hints = {self.index[word]: number for number, word in enumerate(hint_words)}
        for number, word in enumerate(hint_words):
            for plural in (f"{word}s", f"{word}es"):
                if plural in self.index:
                    self.hints.setdefault(self.index[plural], number)
        self.rng = random.Random(0)
        self.order: list[int] = []
        self.epoch = -1

    def encode(self, caption: str) -> list[int]:
        """Token ids of a caption, the stop token last unless the caption is cut."""
        ids = [self.index.get(word, words.UNKNOWN) for word in words.split(caption)]
        return (
            ids[: self.settings.longest] if len(ids) > self.settings.longest else [*ids, words.STOP]
        )

    def draw_photos(self) -> tuple[list[int], Tensor]:
        """Indices of the next photos, every photo once an epoch, and their maps (B, C, h, w)."""
        if len(self.order) < self.settings.batch:
            self.epoch += 1
            self.store.refresh()
            self.order = self.rng.sample(range(len(self.photos)), len(self.photos))
        chosen = [self.order.pop() for _ in range(self.settings.batch)]
        maps = [self.store.maps(*self.photos[i][:2], self.epoch + i) for i in chosen]
        batch = torch.stack([torch.from_numpy(m.astype("float32")) for m in maps])
        mirrored = torch.tensor([self.rng.random() < 0.5 for _ in chosen])
        batch[mirrored] = batch[mirrored].flip(3)
        return chosen, batch.to(self.device, memory_format=torch.channels_last)

    def draw_captions(self, chosen: list[int]) -> tuple[list[list[int]], Tensor]:
        """Some captions of each photo, and the position of the photo that each belongs to."""
        lines, owner = [], []
        for position, index in enumerate(chosen):
            captions = self.photos[index][2]
            count = min(self.settings.captions_a_photo, len(captions))
            lines += self.rng.sample(captions, count)
            owner += [position] * count
        return lines, torch.tensor(owner, device=self.device)

    def draw_tags(self, chosen: list[int]) -> Tensor:
        """Share of a photo's captions with each of the most frequent words, (B, tags)."""
        first, last = len(words.SPECIALS), len(words.SPECIALS) + self.settings.tags
        shares = torch.zeros(len(chosen), self.settings.tags)
        for row, index in enumerate(chosen):
            captions = self.photos[index][2]
            for word in (word for line in captions for word in set(line)):
                if first <= word < last:
                    shares[row, word - first] += 1 / len(captions)
        return shares.to(self.device)

    def draw_texts(self) -> tuple[list[list[int]], Tensor, Tensor]:
        """Captions without photos, and hints as a classifier would give: right ones and wrong."""
        lines = self.rng.sample(self.texts, self.settings.texts_a_step)
        size = self.settings.hints
        probabilities = torch.zeros(len(lines), size)
        hints = torch.full((len(lines), size), -1)
        total = max(self.hints.values()) + 1
        for row, line in enumerate(lines):
            named = dict.fromkeys(self.hints[word] for word in line if word in self.hints)
            right = [
                (word, self.rng.uniform(0.1, 1.0)) for word in named if self.rng.random() < 0.8
            ]
            wrong = [(self.rng.randrange(total), self.rng.uniform(0, 0.3)) for _ in range(2)]
            for place, (word, probability) in enumerate((right + wrong)[:size]):
                hints[row, place], probabilities[row, place] = word, probability
        return lines, probabilities.to(self.device), hints.to(self.device)


def pad(lines: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs (N, T), the start token first, and targets (N, T), -100 after the end."""
    longest = max(map(len, lines))
    inputs = torch.full((len(lines), longest), words.PAD)
    targets = torch.full((len(lines), longest), -100)
    for row, line in enumerate(lines):
        inputs[row, 0] = words.START
        inputs[row, 1 : len(line)] = torch.tensor(line[:-1])
        targets[row, : len(line)] = torch.tensor(line)
    return inputs.to(device), targets.to(device)


def caption_loss(
    model: PrefixCaptioner, lines: list[list[int]], prefix: Tensor, owner: Tensor,
    mask: Tensor | None, smoothing: float,
) -> Tensor:  # fmt: skip
    """Mean over tokens; short and long captions go apart, which halves the padding."""
    order = sorted(range(len(lines)), key=lambda row: len(lines[row]))
    total, count = prefix.new_zeros(()), 0
    for rows in (order[: len(order) // 2], order[len(order) // 2 :]):
        inputs, targets = pad([lines[row] for row in rows], prefix.device)
        hidden = model.language_model.hidden(inputs, prefix, owner[rows], mask)
        real = targets != -100
        logits = model.language_model.head(hidden[real])
        total = total + F.cross_entropy(
            logits, targets[real], label_smoothing=smoothing, reduction="sum"
        )
        count += int(real.sum())
    return total / count


def word_losses(
    model: PrefixCaptioner, batches: Batches, settings: Settings
) -> Iterator[dict[str, Tensor]]:
    """Cross entropy with and without photos, and staying with the published classes."""
    published = published_encoder(settings.scale).requires_grad_(False).to(batches.device)
    smoothing = settings.label_smoothing
    while True:
        chosen, maps = batches.draw_photos()
        lines, owner = batches.draw_captions(chosen)
        features = model.encoder.tail(maps, model.depth)
        terms = {
            "photos": caption_loss(model, lines, model.mapper(features), owner, None, smoothing)
        }
        told = model.tag(F.dropout(features[:, 0], settings.dropout))
        tags = F.binary_cross_entropy_with_logits(told, batches.draw_tags(chosen), reduction="sum")
        terms["tags"] = settings.tagging * tags / len(chosen)
        few = slice(0, len(maps) // 3)
        with torch.no_grad():
            target = published.classify(published.tail(maps[few], model.depth)).softmax(1)
        classes = model.encoder.classify(features[few]).log_softmax(1)
        terms["classes"] = settings.distillation * F.kl_div(classes, target, reduction="batchmean")
        texts, probabilities, hints = batches.draw_texts()
        prefix, mask = model.mapper.of_words(probabilities, hints)
        rows = torch.arange(len(texts), device=prefix.device)
        loss = caption_loss(model, texts, prefix, rows, mask, smoothing)
        terms["texts"] = 0.25 * loss
        yield terms


def reward_losses(
    model: PrefixCaptioner, batches: Batches, settings: Settings
) -> Iterator[dict[str, Tensor]]:
    """Self-critical loss; the mean reward is logged beside it and has no gradient."""
    references = [captions[:5] for _, _, captions in batches.photos]
    reward = CiderD(references)
    rules = words.rules(settings.longest)
    while True:
        chosen, maps = batches.draw_photos()
        usable = [i for i, photo in enumerate(chosen) if len(references[photo]) > 1]
        with torch.no_grad():  # the encoder has learned what it can from words
            features = model.encoder.tail(maps[usable], model.depth)
        loss, mean = self_critical_loss(
            model, model.mapper(features), reward, [chosen[i] for i in usable],
            rules=rules, captions=settings.beams,
        )  # fmt: skip
        yield {"loss": loss, "reward": loss.new_tensor(mean)}


def checker(
    model: PrefixCaptioner, data: Path, store: Path, vocabulary: list[str], size: int = 300
) -> Callable[[], str]:
    """CIDEr-D on the validation sets (at most `size` photos each), and sample captions."""
    import numpy as np

    device = next(model.parameters()).device
    sets = []
    for name in photos.VALIDATION:
        names = json.loads((store / f"{name}.json").read_text())[:size]
        captions = photos.captions(data, name)
        references = [[words.split(line) for line in captions[photo]] for photo in names]
        sets.append((name, np.load(store / f"{name}.0.npy")[:size], CiderD(references)))

    rules = words.rules(20)
    engine = TorchEngine(model.language_model, vocab_size=len(vocabulary), device=str(device))

    def check() -> str:
        parts = []
        for name, maps, scorer in sets:
            texts: list[list[str]] = []
            for first in range(0, len(maps), 50):
                batch = torch.from_numpy(maps[first : first + 50].astype("float32")).to(device)
                with torch.no_grad():
                    prefix = model.prefix(batch).cpu().numpy()
                for hypotheses in decode(engine, prefix, Beam(size=5), rules):
                    texts.append([vocabulary[i] for i in hypotheses[0].token_ids])
            mean = sum(scorer.score(t, i) for i, t in enumerate(texts)) / len(texts)
            parts.append(f"{name} {mean:.3f} ({' '.join(texts[7])})")
        return "  ".join(parts)

    return check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--settings", type=Path, default=Path(__file__).with_name("settings.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--device", default="cpu", type=torch.device)
    options = parser.parse_args()
    settings = read_settings(options.settings, options.set)
    options.run.mkdir(parents=True, exist_ok=True)
    every = [line for lines in training_captions(options.data).values()
             for captions in lines.values() for line in captions[:5]]  # fmt: skip
    vocabulary = words.vocabulary(
        every, training_texts(options.data), settings.least_seen, settings.least_seen_in_text
    )
    (options.run / "vocabulary.json").write_text(json.dumps(vocabulary))
    print(describe(settings), f"{len(vocabulary)} words", flush=True)
    model = build(settings, vocabulary).to(options.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    store = Store(options.store)
    batches = Batches(options.data, store, settings, vocabulary, options.device)
    check = checker(model, options.data, options.store, vocabulary)
    stages = (
        ("words", word_losses, settings.steps, settings.learning_rate, settings.warmup),
        ("reward", reward_losses, settings.self_critical_steps,
         settings.self_critical_learning_rate, 20),
    )  # fmt: skip
    for name, losses, steps, learning_rate, warmup in stages:
        schedule = Schedule(
            steps=steps, learning_rate=learning_rate, warmup=warmup,
            average=0.999 if name == "words" else 0.99, check_every=200, log_every=10,
        )  # fmt: skip
        groups = parameter_groups(model, model.encoder, settings.encoder_pace, schedule)
        model.train()
        fit(model, groups, losses(model, batches, settings), schedule,
            checkpoint=options.run / f"{name}.pt", check=check,
            log=lambda line: print(line, flush=True))  # fmt: skip
        averaged = torch.load(options.run / f"{name}.pt", weights_only=True)["average"]
        model.load_state_dict(averaged, strict=False)


if __name__ == "__main__":
    main()
