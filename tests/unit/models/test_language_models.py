"""Every language model reads whole captions, decodes step by step, and runs as a graph alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import onnx_ir as ir  # noqa: E402

from capsmith.errors import ConfigError  # noqa: E402
from capsmith.export.graphs import export_decoder  # noqa: E402
from capsmith.export.parity import compare_decoder  # noqa: E402
from capsmith.export.quantize import quantize  # noqa: E402
from capsmith.models.engine import TorchEngine  # noqa: E402
from capsmith.models.graph_weights import load_weights  # noqa: E402
from capsmith.runtime.decoding import Rules, decode  # noqa: E402
from capsmith.runtime.engine import OnnxEngine  # noqa: E402
from capsmith.runtime.session import open_session  # noqa: E402
from capsmith.types import Beam, Greedy  # noqa: E402
from tests.unit.models.toys import END, KINDS, START, WORDS, language_model, prefixes  # noqa: E402

RULES = Rules(prompt=(START,), stop=frozenset({END}), max_tokens=10)


def empty_states(model: Any, rows: int) -> list[torch.Tensor]:
    return [
        torch.zeros(rows, *(0 if isinstance(axis, str) else axis for axis in spec.shape))
        for spec in model.state_spec()
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_give_the_logits_of_the_whole_caption(kind: str) -> None:
    model: Any = language_model(kind)
    prefix = prefixes(2)
    tokens = torch.randint(0, WORDS, (3, 6), generator=torch.Generator().manual_seed(2))
    owner = torch.tensor([1, 0, 1])
    with torch.inference_mode():
        whole = model.head(model.hidden(tokens, prefix, owner))[:, -6:]
        states, parents, fed = empty_states(model, 3), torch.arange(3), prefix[owner]
        for step in range(6):
            column = tokens[:, step, None]
            best, ids, logits, hidden, *states = model(column, fed, parents, 4, *states)
            fed = prefix[owner][:, :0]
            torch.testing.assert_close(logits, whole[:, step], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(logits, model.head(hidden), atol=1e-5, rtol=1e-5)
            expected = logits.log_softmax(1).topk(4)
            torch.testing.assert_close(best, expected.values)
            assert ids.equal(expected.indices)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_the_prefix_that_are_masked_are_not_read(kind: str) -> None:
    model: Any = language_model(kind)
    prefix, tokens = prefixes(2), torch.randint(0, WORDS, (2, 4))
    mask = torch.tensor([[True, False, True], [True, True, False]])
    owner = torch.arange(2)
    with torch.inference_mode():
        masked = model.hidden(tokens, prefix, owner, mask)
        for row in range(2):
            short = model.hidden(tokens[row : row + 1], prefix[row : row + 1, mask[row]], owner[:1])
            torch.testing.assert_close(masked[row, -4:], short[0, -4:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_caption_as_the_module_does(kind: str, tmp_path: Path) -> None:
    model: Any = language_model(kind)
    path = tmp_path / "float32.onnx"
    export_decoder(model, path)
    prefix = prefixes(6).numpy()
    module, graph = TorchEngine(model, vocab_size=WORDS), OnnxEngine(open_session(path, threads=1))
    for strategy in (Greedy(), Beam(size=3, candidates=3)):
        ours = decode(graph, prefix, strategy, RULES)
        expected = decode(module, prefix, strategy, RULES)
        assert [[c.token_ids for c in photo] for photo in ours] == [
            [c.token_ids for c in photo] for photo in expected
        ]
        assert len({photo[0].token_ids for photo in ours}) > 3
    parity = compare_decoder(model, path, prefix, RULES, tolerance=1e-4)
    assert parity.captions == 1
    fresh: Any = language_model(kind, seed=1)
    load_weights(fresh, path)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(fresh.state_dict()[name], tensor)
    for precision, steps, tolerance in (("int8", 127, 1.0), ("int4", 7, math.inf)):
        small = tmp_path / f"{precision}.onnx"
        ir.save(quantize(ir.load(path), precision), small)
        assert small.stat().st_size < 0.7 * path.stat().st_size
        compare_decoder(model, small, prefix, RULES, tolerance=tolerance)
        load_weights(fresh, small)
        for name, tensor in model.state_dict().items():
            error = (fresh.state_dict()[name] - tensor).abs().max()
            assert error <= tensor.abs().max() / steps, name


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_caption_that_does_not_fit_is_one_clear_error(kind: str) -> None:
    model: Any = language_model(kind)
    with pytest.raises(ConfigError, match="3 rows and 30 tokens do not fit"):
        model.hidden(torch.zeros(1, 30, dtype=torch.int64), prefixes(1), torch.zeros(1).long())


@pytest.mark.parametrize("kind", ["gpt2", "llama", "lstm"])
def test_dropout_acts_in_training_alone(kind: str) -> None:
    model: Any = language_model(kind, dropout=0.5)
    tokens, owner = torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1).long()
    hidden = [model.hidden(tokens, prefixes(1), owner) for _ in range(2)]
    torch.testing.assert_close(*hidden)
    model.train()
    noisy = [model.hidden(tokens, prefixes(1), owner) for _ in range(2)]
    assert not torch.allclose(*noisy, atol=1e-3)


def test_a_recurrent_model_reads_the_prefix_first_or_starts_from_it() -> None:
    tokens, owner = torch.zeros(2, 5, dtype=torch.int64), torch.arange(2)
    first: Any = language_model("lstm")
    assert first.hidden(tokens, prefixes(2), owner).shape == (2, 3 + 5, 48)
    state: Any = language_model("lstm", image="initial-state")
    hidden = state.hidden(tokens, prefixes(2), owner)
    assert hidden.shape == (2, 5, 48)
    assert len(state.initial) == 4, "output and cell of two layers"
    assert (hidden[0, 0] - hidden[1, 0]).abs().max() > 0.01, "the photos differ, the words do not"
