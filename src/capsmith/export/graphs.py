"""Torch modules to ONNX graphs that the runtime reads: encoder, mapper, decoder, text tower.

Initialisers keep the names of the module's parameters, so that a bundle can be read back into
torch and trained on.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules
from torch import Tensor, nn
from torch.export import Dim

from capsmith.export.fusion import fuse
from capsmith.export.quantize import Precision, quantize
from capsmith.models.language_models import StateSpec

# Attention with a cache is a standard operator from opset 23.
_OPSET = 23
# Older than the newest, so that every onnxruntime with opset 23 reads the file.
_IR_VERSION = 11
_EXTERNAL_BYTES = 1_000_000_000

# Rules that leave no trace of how the tracer spells views and padding, and rename no parameter.
_RULES = (
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.no_op_transpose_rule,
    rules.squeeze_reshape_1d_rule,
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
)

# Lengths while tracing: all different and none 0 or 1, which the tracer takes for constants.
_ROWS, _OLD_ROWS, _TOKENS, _PREFIX_ROWS, _PAST, _MEMORY, _TOP = 3, 5, 4, 6, 7, 9, 2


class Decoder(Protocol):
    """What `export_decoder` asks of a language model, beside being an `nn.Module`."""

    width: int
    """Width of the prefix vectors that it reads."""

    def state_spec(self) -> Sequence[StateSpec]: ...


def export_encoder(
    module: nn.Module, path: Path, *, height: int, width: int, precision: Precision = "float32"
) -> None:
    """Write `pixels` float32 (batch, 3, height, width) -> `features` float32 (batch, k, d)."""
    pixels = torch.zeros(2, 3, height, width)
    model = _trace(module, (pixels,), ({0: Dim.DYNAMIC},), ["pixels"], ["features"])
    _name_axes(model.graph.inputs[0], ("batch", None, None, None))
    _name_axes(model.graph.outputs[0], ("batch", None, None))
    _write(quantize(model, precision), path)


def export_mapper(
    module: nn.Module, path: Path, *, rows: int, width: int, precision: Precision = "float32"
) -> None:
    """Write `features` float32 (batch, rows, width) -> `prefix` float32 (batch, P, D)."""
    features = torch.zeros(2, rows, width)
    model = _trace(module, (features,), ({0: Dim.DYNAMIC},), ["features"], ["prefix"])
    _name_axes(model.graph.inputs[0], ("batch", None, None))
    _name_axes(model.graph.outputs[0], ("batch", None, None))
    _write(quantize(model, precision), path)


def export_text_tower(module: nn.Module, path: Path, *, precision: Precision = "float32") -> None:
    """Write `tokens` int64 (batch, length) -> `embedding` float32 (batch, d)."""
    tokens = torch.ones(_ROWS, _TOKENS, dtype=torch.int64)
    moving = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    model = _trace(module, (tokens,), (moving,), ["tokens"], ["embedding"])
    _name_axes(model.graph.inputs[0], ("batch", "length"))
    _name_axes(model.graph.outputs[0], ("batch", None))
    _write(quantize(model, precision), path)


def export_decoder(module: nn.Module, path: Path, *, precision: Precision = "float32") -> None:
    """Write one graph for first and later steps (docs/design, "The decoder graph").

    `module` has `width` and `state_spec()` (see `Decoder`) and
    `forward(tokens, prefix, parents, top, *states)`.
    """
    decoder = cast(Decoder, module)
    spec = decoder.state_spec()
    lengths = {"past": _PAST, "memory": _MEMORY}
    shapes = [[lengths.get(str(axis), axis) for axis in state.shape] for state in spec]
    arguments = (
        torch.zeros(_ROWS, _TOKENS, dtype=torch.int64),
        torch.zeros(_ROWS, _PREFIX_ROWS, decoder.width),
        torch.arange(_ROWS),
        *(torch.zeros(_OLD_ROWS, *map(int, shape)) for shape in shapes),
    )
    moving = [
        {0: Dim.DYNAMIC, **{i + 1: Dim.DYNAMIC for i, a in enumerate(s.shape) if a in lengths}}
        for s in spec
    ]
    both = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    model = _trace(
        _FixedTop(module),
        arguments,
        (both, both, {0: Dim.DYNAMIC}, tuple(moving)),
        ["tokens", "prefix", "parents", *(f"state.{state.name}" for state in spec)],
        ["top_logprobs", "top_ids", "logits", "hidden", *(f"next.{state.name}" for state in spec)],
    )
    _ask_for_top(model)
    _name_decoder_axes(model, spec)
    _write(quantize(fuse(model), precision), path)


class _FixedTop(nn.Module):
    """A decoder whose `top` is a number: the tracer does not take a tensor for a length."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(
        self, tokens: Tensor, prefix: Tensor, parents: Tensor, *states: Tensor
    ) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = self.module(tokens, prefix, parents, _TOP, *states)
        return result


def _ask_for_top(model: ir.Model) -> None:
    """Make the number of likeliest tokens an input, and drop the wrapper from parameter names."""
    graph = model.graph
    top = ir.Value(name="top", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    graph.inputs.insert(3, top)
    for node in graph:
        if node.op_type == "TopK":
            node.replace_input_with(1, top)
    for value in list(graph.initializers.values()):
        if value.name is not None and value.name.startswith("module."):
            value.name = value.name.removeprefix("module.")


def _trace(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    dynamic_shapes: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
) -> ir.Model:
    module = module.eval()
    silence = contextlib.redirect_stdout(io.StringIO())
    # It warns of operators that torchvision would have, where that is not installed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), silence, torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic_shapes,
            opset_version=_OPSET,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    names = set(module.state_dict())
    return _simplify(program.model, names)


def _simplify(model: ir.Model, parameters: set[str]) -> ir.Model:
    """Fold what is constant, but leave every parameter as it is and under its own name."""

    def should_fold(node: ir.Node) -> bool | None:
        return False if any(v is not None and v.name in parameters for v in node.inputs) else None

    passes.InlinePass()(model)
    fold_constants_ir(model, onnx_shape_inference=True, should_fold=should_fold)
    Sequential(
        RewritePass(_RULES),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
        passes.RemoveUnusedOpsetsPass(),
    )(model)
    return model


def _name_decoder_axes(model: ir.Model, spec: Sequence[StateSpec]) -> None:
    inputs = {value.name: value for value in model.graph.inputs}
    outputs = {value.name: value for value in model.graph.outputs}
    _name_axes(inputs["tokens"], ("rows", "length"))
    _name_axes(inputs["prefix"], ("rows", "prefix_length", None))
    _name_axes(inputs["parents"], ("rows",))
    for name in ("top_logprobs", "top_ids"):
        _name_axes(outputs[name], ("rows", "top"))
    for name in ("logits", "hidden"):
        _name_axes(outputs[name], ("rows", None))
    for state in spec:
        axes = [axis if isinstance(axis, str) else None for axis in state.shape]
        _name_axes(inputs[f"state.{state.name}"], ("old_rows", *axes))
        # Not from the tracer, which is wrong about the shapes of an LSTM's states.
        grown = [f"next_{axis}" if isinstance(axis, str) else axis for axis in state.shape]
        outputs[f"next.{state.name}"].shape = ir.Shape(["rows", *grown])


def _name_axes(value: ir.Value, names: Sequence[str | None]) -> None:
    """Call the axes of `value` by `names`; None keeps the axis as it is, a fixed number."""
    assert value.shape is not None
    value.shape = ir.Shape(
        [size if name is None else name for size, name in zip(value.shape, names, strict=True)]
    )


def _write(model: ir.Model, path: Path) -> None:
    model.ir_version = _IR_VERSION
    for node in model.graph:
        node.metadata_props.clear()
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values()
                  if value.const_value is not None)  # fmt: skip
    external = path.name + ".data" if weights > _EXTERNAL_BYTES else None
    ir.save(model, path, external_data=external)
