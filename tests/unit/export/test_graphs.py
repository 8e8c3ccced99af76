"""Exported graphs: parameter names, sizes, what quantisation keeps and what it must never do."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn

from capsmith.errors import BundleError
from capsmith.export.graphs import export_decoder, export_encoder, export_mapper
from capsmith.export.parity import compare_outputs
from capsmith.export.quantize import BLOCK, Precision, quantize, quantize_blocks
from capsmith.models.gpt2 import GPT2, GPT2Config
from capsmith.models.graph_weights import load_weights, widen_blocks
from capsmith.runtime.decoding import Rules, decode
from capsmith.runtime.engine import OnnxEngine, Want
from capsmith.runtime.session import open_session
from capsmith.types import Beam, Greedy

WIDTH, VOCABULARY = 64, 211
RULES = Rules(stop=frozenset({0}), max_tokens=8)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Stem(nn.Module):
    """An encoder in small: padding by hand, a convolution, ReLU6, pooling to rows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 5, 2)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.expand = nn.Conv2d(32, 96, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pad(pixels, (1, 2, 1, 2))
        x = self.expand(self.depthwise(nn.functional.relu6(self.conv(x))))
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(2).transpose(1, 2)


class Rows(nn.Module):
    """A mapper in small: one linear layer a row, then attention among the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(96, WIDTH)
        self.mixer = nn.TransformerEncoderLayer(WIDTH, 4, 96, 0.0, batch_first=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.mixer(self.project(features))
        return mixed


@pytest.fixture(scope="module")
def module() -> GPT2:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, positions=32, width=WIDTH, layers=2, heads=4)
    module = GPT2(config).eval()
    for parameter in module.parameters():
        parameter.data.normal_(std=0.2)
    return module


@pytest.fixture(scope="module")
def decoders(module: GPT2, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    folder = tmp_path_factory.mktemp("decoders")
    export_decoder(module, folder / "float32.onnx")
    for precision in PRECISIONS[1:]:
        model = ir.load(folder / "float32.onnx")
        ir.save(quantize(model, precision), folder / f"{precision}.onnx")
    return {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}


def prefixes(count: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(count, 5, WIDTH)).astype(np.float32)


def logits(path: Path, prefix: np.ndarray, threads: int = 1) -> np.ndarray:
    engine = OnnxEngine(open_session(path, threads=threads))
    none = np.zeros((len(prefix), 0), np.int64)
    state, first = engine.start(prefix, none, Want(logits=True))
    rows = np.arange(len(prefix))
    _, second = engine.step(state, rows % VOCABULARY, rows, Want(logits=True))
    assert first.logits is not None
    assert second.logits is not None
    return np.stack([first.logits, second.logits], 1)


def test_initialisers_keep_the_names_and_values_of_parameters(
    module: GPT2, decoders: dict[Precision, Path]
) -> None:
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(decoders["float32"]).graph.initializer
    }
    for name, parameter in module.state_dict().items():
        np.testing.assert_array_equal(stored[name], parameter.numpy())


@pytest.mark.parametrize(
    ("precision", "smaller", "tolerance"),
    [("float16", 1.8, 0.003), ("int8-stored", 3.0, 0.1), ("int8", 3.0, 0.1), ("int4", 4.8, 1.2)],
)
def test_precisions_are_smaller_and_nearly_right(
    decoders: dict[Precision, Path], precision: Precision, smaller: float, tolerance: float
) -> None:
    full = decoders["float32"]
    assert full.stat().st_size > smaller * decoders[precision].stat().st_size
    expected = logits(full, prefixes(4))
    difference = np.abs(logits(decoders[precision], prefixes(4)) - expected).max()
    assert 0 < difference < tolerance * expected.std()


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float32", 0.0), ("float16", 0.001), ("int8-stored", 0.01), ("int8", 0.01), ("int4", 0.2)],
)
def test_graphs_are_read_back_into_modules(
    module: GPT2, decoders: dict[Precision, Path], precision: Precision, tolerance: float
) -> None:
    again = GPT2(module.config)
    load_weights(again, decoders[precision])
    for name, parameter in module.state_dict().items():
        torch.testing.assert_close(
            again.state_dict()[name],
            parameter,
            rtol=0,
            atol=tolerance * float(parameter.abs().max()),
        )


def test_graphs_of_other_modules_are_not_read_back(decoders: dict[Precision, Path]) -> None:
    other = GPT2(GPT2Config(vocab_size=VOCABULARY, positions=31, width=WIDTH, layers=2, heads=4))
    with pytest.raises(BundleError, match=r"float16.onnx: weight wpe.weight is \(32, 64\) where"):
        load_weights(other, decoders["float16"])
    with pytest.raises(BundleError, match=r"has no weight project.weight"):
        load_weights(Rows(), decoders["float16"])


@pytest.mark.parametrize("precision", ["float16", "int8-stored"])
def test_stored_weights_are_widened_once_at_load(
    decoders: dict[Precision, Path], tmp_path: Path, precision: Precision
) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(decoders[precision], options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert not operators & {"Cast", "DequantizeLinear"}


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_head_and_words_share_the_same_codes(
    decoders: dict[Precision, Path], precision: Precision
) -> None:
    graph = onnx.load(decoders[precision]).graph
    readers = {node.op_type for node in graph.node if "wte.weight.codes" in node.input}
    assert readers == {"MatMulNBits", "Reshape"}
    assert not [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    assert "wte.weight" not in {tensor.name for tensor in graph.initializer}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_is_the_same_alone_and_in_any_batch_with_any_threads(
    decoders: dict[Precision, Path], precision: Precision
) -> None:
    path, prefix = decoders[precision], prefixes(16)
    # A neighbour a thousand times as large: any shared scale would ruin the others.
    prefix[15] *= 1000
    alone = np.concatenate([logits(path, prefix[row : row + 1]) for row in range(15)])
    for threads in (1, 2):
        for size in (2, 5, 16):
            batch = logits(path, np.concatenate([prefix[: size - 1], prefix[15:]]), threads)
            np.testing.assert_allclose(
                batch[0, 0], alone[0, 0], atol=1e-5 * float(alone.std()), rtol=1e-4
            )
            np.testing.assert_allclose(
                batch[: size - 1, 0], alone[: size - 1, 0], atol=1e-4 * float(alone.std())
            )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_captions_are_the_same_alone_shuffled_and_in_batches(
    decoders: dict[Precision, Path], precision: Precision
) -> None:
    prefix = prefixes(16)
    order = np.random.default_rng(0).permutation(16)
    for threads, strategy in ((1, Greedy()), (2, Beam(size=3))):
        engine = OnnxEngine(open_session(decoders[precision], threads=threads))
        alone = [decode(engine, prefix[i : i + 1], strategy, RULES)[0][0] for i in range(16)]
        for size in (2, 7, 16):
            for begin in range(0, 16, size):
                rows = order[begin : begin + size]
                batch = decode(engine, prefix[rows], strategy, RULES)
                assert [h[0].token_ids for h in batch] == [alone[row].token_ids for row in rows]


@pytest.mark.parametrize("bits", [8, 4])
def test_blocks_are_rounded_to_the_nearest_code(bits: int) -> None:
    weight = np.random.default_rng(0).normal(size=(5, 3 * BLOCK - 7)).astype(np.float32)
    weight[2] = 0
    codes, scales = quantize_blocks(weight, bits)
    widened = widen_blocks(codes, scales, bits).reshape(5, 3, BLOCK)
    padded = np.zeros((5, 3 * BLOCK), np.float32)
    padded[:, : weight.shape[1]] = weight
    error = np.abs(widened - padded.reshape(5, 3, BLOCK))
    # The largest value opposite in sign to the block's extreme may be cut off by one step.
    assert (error <= np.abs(scales[..., None])).all()
    assert np.median(error / np.maximum(np.abs(scales[..., None]), 1e-9)) < 0.3
    assert (widened[2] == 0).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_products_do_not_saturate(bits: int, tmp_path: Path) -> None:
    """Largest weights times largest activations overflow 16-bit sums where kernels are careless."""
    layer = nn.Linear(4 * BLOCK, 64, bias=False)
    layer.weight.data.fill_(0.98)
    layer.weight.data[:, ::BLOCK] = -1.0
    path = tmp_path / "mapper.onnx"
    export_mapper(layer, path, rows=1, width=4 * BLOCK, precision="int8" if bits == 8 else "int4")
    session = open_session(path, threads=1)
    for sign in (1.0, -1.0):
        features = np.full((3, 1, 4 * BLOCK), sign, np.float32)
        expected = features @ layer.weight.detach().numpy().T
        np.testing.assert_allclose(
            session.run(None, {"features": features})[0], expected, rtol=0.2 if bits == 4 else 0.01
        )


@pytest.fixture(scope="module")
def stem_and_rows(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[tuple[Stem, Path], tuple[Rows, Path]]:
    torch.manual_seed(1)
    stem, rows = Stem().eval(), Rows().eval()
    folder = tmp_path_factory.mktemp("graphs")
    export_encoder(stem, folder / "encoder.onnx", height=33, width=41)
    export_mapper(rows, folder / "mapper.onnx", rows=4, width=96)
    return (stem, folder / "encoder.onnx"), (rows, folder / "mapper.onnx")


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("float16", 0.01), ("int8-stored", 0.05)]
)
def test_encoders_and_mappers_take_any_batch(
    stem_and_rows: tuple[tuple[Stem, Path], tuple[Rows, Path]],
    tmp_path: Path,
    precision: Precision,
    tolerance: float,
) -> None:
    for (module, full), shape in zip(stem_and_rows, [(3, 33, 41), (4, 96)], strict=True):
        ir.save(quantize(ir.load(full), precision), tmp_path / full.name)
        for batch in (1, 3):
            inputs = torch.randn(batch, *shape)
            compare_outputs(module, tmp_path / full.name, inputs, tolerance=tolerance)


def test_encoders_keep_names_and_fuse_padding(
    stem_and_rows: tuple[tuple[Stem, Path], tuple[Rows, Path]],
) -> None:
    stem, path = stem_and_rows[0]
    graph = onnx.load(path).graph
    assert set(stem.state_dict()) <= {tensor.name for tensor in graph.initializer}
    assert "Pad" not in {node.op_type for node in graph.node}
