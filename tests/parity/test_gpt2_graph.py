"""Our GPT-2, as a module and as a graph, against `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capsmith.errors import BundleError, CheckpointError
from capsmith.export.parity import compare_decoder
from capsmith.models.engine import TransformersEngine
from capsmith.models.gpt2 import GPT2, load_gpt2
from capsmith.runtime.decoding import Rules, decode
from capsmith.runtime.engine import OnnxEngine
from capsmith.runtime.session import open_session
from capsmith.types import Beam, Contrastive, Greedy, Sample, Strategy
from tests.parity.gpt2 import random_gpt2, tiny_gpt2, write_decoder

RULES = Rules(stop=frozenset({5}), max_tokens=12)


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, GPT2]:
    return tiny_gpt2()


@pytest.fixture(scope="module")
def decoder(tiny: tuple[Any, GPT2], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tiny[1], tmp_path_factory.mktemp("gpt2"))


def prefixes(count: int, width: int = 64) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 6, width)).astype(np.float32)


def logits_of_transformers(model: Any, prefix: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    vectors = torch.cat([prefix, model.transformer.wte(tokens)], 1)
    with torch.inference_mode():
        logits: torch.Tensor = model(inputs_embeds=vectors).logits[:, -1]
    return logits


def empty_states(model: GPT2, rows: int) -> list[torch.Tensor]:
    return [
        torch.zeros(rows, *(0 if isinstance(axis, str) else axis for axis in spec.shape))
        for spec in model.state_spec()
    ]


def test_module_gives_the_logits_of_transformers_at_once_and_step_by_step(
    tiny: tuple[Any, GPT2],
) -> None:
    model, ours = tiny
    prefix = torch.from_numpy(prefixes(2))
    tokens = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    rows = torch.arange(2)
    with torch.inference_mode():
        at_once = ours(tokens, prefix, rows, 1, *empty_states(ours, 2))
        stepwise = ours(tokens[:, :0], prefix, rows, 1, *empty_states(ours, 2))
        for column in tokens.T:
            stepwise = ours(column[:, None], prefix[:, :0], rows, 1, *stepwise[4:])
    expected = logits_of_transformers(model, prefix, tokens)
    torch.testing.assert_close(at_once[2], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stepwise[2], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "strategy",
    [Greedy(), Beam(size=4, candidates=3), Sample(seed=3, top_k=20), Contrastive(k=3)],
    ids=lambda strategy: type(strategy).__name__.lower(),
)
def test_graph_captions_as_transformers_does(
    tiny: tuple[Any, GPT2], decoder: Path, strategy: Strategy
) -> None:
    graph = OnnxEngine(open_session(decoder, threads=1))
    reference = TransformersEngine(tiny[0])
    ours = decode(graph, prefixes(6), strategy, RULES)
    theirs = decode(reference, prefixes(6), strategy, RULES)
    assert [[h.token_ids for h in hypotheses] for hypotheses in ours] == [
        [h.token_ids for h in hypotheses] for hypotheses in theirs
    ]
    assert len({hypotheses[0].token_ids for hypotheses in ours}) > 3


def test_parity_is_measured_and_refused_beyond_the_tolerance(
    tiny: tuple[Any, GPT2], decoder: Path
) -> None:
    parity = compare_decoder(tiny[1], decoder, prefixes(5), RULES, tolerance=1e-4)
    assert parity.captions == 1.0
    other = tiny_gpt2(seed=7)[1]
    with pytest.raises(BundleError, match=r"decoder-float32.onnx: .* standard deviations off"):
        compare_decoder(other, decoder, prefixes(5), RULES, tolerance=1e-4)


def test_state_dicts_that_are_no_gpt2_are_refused(tiny: tuple[Any, GPT2]) -> None:
    state = dict(tiny[0].state_dict())
    with pytest.raises(CheckpointError, match=r"not a GPT-2 state dict: 'wte.weight' is missing"):
        load_gpt2({}, heads=4)
    with pytest.raises(CheckpointError, match="head is not tied"):
        load_gpt2(state | {"lm_head.weight": state["lm_head.weight"] + 1}, heads=4)
    del state["transformer.h.1.ln_2.bias"]
    with pytest.raises(CheckpointError, match=r"h\.1\.ln_2\.bias"):
        load_gpt2(state, heads=4)


@pytest.mark.slow
def test_graph_of_full_size_captions_as_transformers_does(tmp_path: Path) -> None:
    model, ours = random_gpt2()
    graph = OnnxEngine(open_session(write_decoder(ours, tmp_path)))
    reference = TransformersEngine(model)
    rules = Rules(stop=frozenset({50256}), max_tokens=6)
    prefix = prefixes(2, width=768)
    for strategy in (Greedy(), Beam(size=3)):
        mine = decode(graph, prefix, strategy, rules)
        theirs = decode(reference, prefix, strategy, rules)
        assert [h[0].token_ids for h in mine] == [h[0].token_ids for h in theirs]
        np.testing.assert_allclose(
            [h[0].logprob for h in mine], [h[0].logprob for h in theirs], rtol=1e-4
        )
