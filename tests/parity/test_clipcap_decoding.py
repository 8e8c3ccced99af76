"""Greedy search and the beam rule "mean-with-stop" against recordings of ClipCap's own runs."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from capsmith.models.engine import TransformersEngine
from capsmith.runtime.decoding import Rules, decode
from capsmith.types import Beam, Greedy

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/golden"
FAMILIES = (
    "clipcap-mlp",
    "clipcap-transformer",
    "clipcap-predictor-mlp",
    "clipcap-predictor-linear",
    "capdec",
    "capdec-encdec",
    "clipcap-lightning",
)

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no recordings at {GOLDEN}")


@cache
def language_model(family: str, temperature: float = 1.0) -> GPT2LMHeadModel:
    sizes = json.loads((GOLDEN / family / "manifest.json").read_text())["sizes"]
    state = torch.load(GOLDEN / family / "checkpoint.pt", weights_only=True)
    weights = {
        name.split(".", 1)[1]: tensor
        for name, tensor in state.items()
        if name.startswith(("gpt.", "language_model."))
        and not name.endswith((".attn.bias", ".attn.masked_bias"))
    }
    vocab_size, width = weights["lm_head.weight"].shape
    config = GPT2Config(
        vocab_size=vocab_size,
        n_embd=width,
        n_layer=sizes["n_layer"],
        n_head=sizes["n_head"],
        n_positions=sizes["n_positions"],
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config).eval()
    model.load_state_dict(weights)
    # Logits over a temperature are those of a head whose weights are over it.
    model.lm_head.weight = torch.nn.Parameter(weights["lm_head.weight"] / temperature)
    return model


def recordings(family: str, kind: str) -> list[tuple[str, dict[str, Any]]]:
    runs = json.loads((GOLDEN / family / "decode.json").read_text())
    return [
        (name, run)
        for name in runs
        if name.startswith(kind) and "entry_count" not in name
        for run in runs[name]
    ]


def rules(family: str, name: str) -> Rules:
    """The options that a recording's name stands for."""
    vocabulary = json.loads((GOLDEN / family / "tokenizer/vocab.json").read_text())
    is_end = "endoftext" in name or family == "clipcap-lightning"
    found = re.search(r"(?:length|entry)_(\d+)", name)
    length = int(found[1]) if found else 30 if is_end else 67
    stop = vocabulary["<|endoftext|>" if is_end else "."]
    return Rules(stop=frozenset({stop}), max_tokens=length)


def prefix(family: str, image: int) -> np.ndarray:
    rows = np.load(GOLDEN / family / "prefix_embeddings.npy")
    return rows[image : image + 1].astype(np.float32)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "clipcap-lightning"])
def test_greedy(family: str) -> None:
    model = language_model(family)
    for name, run in recordings(family, "generate2"):
        limits = rules(family, name)
        found = decode(TransformersEngine(model), prefix(family, run["image"]), Greedy(), limits)
        assert with_stop(found[0][0], limits) == run["ids"], name


@pytest.mark.parametrize("family", FAMILIES)
def test_beam(family: str) -> None:
    for name, run in recordings(family, "beam"):
        model = language_model(family, 0.6 if "temperature_0.6" in name else 1.0)
        size = run["beam_size"]
        limits = rules(family, name)
        strategy = Beam(size=size, candidates=size, rule="mean-with-stop")
        found = decode(TransformersEngine(model), prefix(family, run["image"]), strategy, limits)[0]
        best_first = np.argsort(-np.array(run["mean_logprob"]), kind="stable")
        assert [with_stop(caption, limits) for caption in found] == [
            run["kept_ids_per_row"][row] for row in best_first
        ], name
        np.testing.assert_allclose(
            [caption.mean_logprob for caption in found],
            np.array(run["mean_logprob"])[best_first],
            atol=1e-5,
        )


def with_stop(caption: Any, limits: Rules) -> list[int]:
    return [*caption.token_ids, *([*limits.stop] if caption.finish_reason == "stop" else [])]
