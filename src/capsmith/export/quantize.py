"""Smaller weights: stored small and widened at load, or small in the products themselves.

Never does the result for one row depend on another row, so a caption is the same in any batch:
scales belong to weights, or to one block of one row of activations, never to a whole tensor.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from capsmith.export.edits import add_initializer, only_user, take_over
from capsmith.models.graph_weights import constant

Precision = Literal["float32", "float16", "int8-stored", "int8", "int4"]
"""How weights are kept.

float32      as they are
float16      stored in half the bytes, widened at load; computes in float32
int8-stored  stored in 8 bits with a scale per output channel, widened at load; computes in float32
int8, int4   matrix products, the output head too, read 8- or 4-bit weights with a scale per block
             of `BLOCK` inputs (MatMulNBits); other large weights as float16
"""

BLOCK = 64
"""Inputs that share a scale in int8 and int4. Measured: as fast as 128, and less error."""

# Products quantise each block of a row of activations to 8 bits as well. Level 0 widens the
# weights at every product, which costs more than it saves: 3 to 60 times as long for one row.
_ACCURACY_LEVEL = 4

_LARGE = 2048
"""Weights with fewer elements (norms, biases) stay as they are: nothing would be gained."""


def quantize(model: ir.Model, precision: Precision) -> ir.Model:
    """Keep the weights of `model` in `precision`; changes `model` and returns it."""
    if precision == "float16":
        _store_half(model)
    elif precision == "int8-stored":
        _store_int8(model)
    elif precision in ("int8", "int4"):
        _quantize_products(model, 8 if precision == "int8" else 4)
        _store_half(model)
    passes.RemoveUnusedNodesPass()(model)
    return model


def quantize_blocks(
    weight: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Symmetric quantisation of `weight` float32 (N, K) in blocks of `BLOCK` along K.

    Returns codes uint8 (N, blocks, BLOCK * bits / 8), two 4-bit codes a byte, low first, and
    scales float32 (N, blocks): weight = (code - 2 ** (bits - 1)) * scale. The scale has the sign
    that lets the block's largest magnitude use the one code that has no opposite.
    """
    rows, width = weight.shape
    blocks = -(-width // BLOCK)
    padded = np.zeros((rows, blocks * BLOCK), np.float32)
    padded[:, :width] = weight
    padded = padded.reshape(rows, blocks, BLOCK)
    middle = 2 ** (bits - 1)
    largest = np.abs(padded).argmax(2, keepdims=True)
    scales = np.take_along_axis(padded, largest, 2) / np.float32(-middle)
    steps = np.divide(padded, scales, out=np.zeros_like(padded), where=scales != 0)
    codes = np.clip(np.rint(steps) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return codes, scales[..., 0].astype(np.float32)


def _quantize_products(model: ir.Model, bits: int) -> None:
    for node in list(model.graph):
        if node.op_type in ("MatMul", "Gemm") and not node.domain:
            _quantize_product(model, node, bits)
    model.opset_imports["com.microsoft"] = 1


def _quantize_product(model: ir.Model, node: ir.Node, bits: int) -> None:
    weight, is_transposed = _weight_of(node)
    array = constant(weight)
    if weight is None or array is None:
        return
    outputs_first = np.ascontiguousarray(array if is_transposed else array.T)
    codes, scales = quantize_blocks(outputs_first, bits)
    graph = model.graph
    name = weight.name if is_transposed else f"{weight.name}.transposed"
    code_value = add_initializer(graph, f"{name}.codes", codes)
    scale_value = add_initializer(graph, f"{name}.scales", scales)
    bias, last = _bias_of(node)
    product = ir.node(
        "MatMulNBits",
        [node.inputs[0], code_value, scale_value, None, None, bias],
        domain="com.microsoft",
        attributes={
            "K": outputs_first.shape[1],
            "N": outputs_first.shape[0],
            "bits": bits,
            "block_size": BLOCK,
            "accuracy_level": _ACCURACY_LEVEL,
        },
    )
    graph.insert_before(last, product)
    take_over(last.outputs[0], product.outputs[0])
    if is_transposed and codes.shape[1] * BLOCK == array.shape[1]:
        _share_with_embedding(graph, weight, code_value, scale_value, bits)


def _weight_of(node: ir.Node) -> tuple[ir.Value | None, bool]:
    """The large parameter that `node` multiplies by, and whether its outputs lie on axis 0."""
    weight = node.inputs[1]
    is_transposed = bool(node.attributes.get_int("transB", 0))
    producer = weight.producer() if weight is not None else None
    if producer is not None and producer.op_type == "Transpose":
        weight, is_transposed = producer.inputs[0], not is_transposed
    array = constant(weight)
    is_weight = array is not None and array.ndim == 2 and array.size >= _LARGE
    return (weight, is_transposed) if is_weight else (None, False)


def _bias_of(node: ir.Node) -> tuple[ir.Value | None, ir.Node]:
    """The bias added to a product, and the last node of product and bias."""
    if node.op_type == "Gemm":
        return (node.inputs[2] if len(node.inputs) > 2 else None), node
    add = only_user(node, "Add")
    for value in add.inputs if add is not None else ():
        array = constant(value)
        if add is not None and array is not None and array.ndim == 1:
            return value, add
    return None, node


def _share_with_embedding(
    graph: ir.Graph, weight: ir.Value, codes: ir.Value, scales: ir.Value, bits: int
) -> None:
    """Where the head is tied to the word embeddings, look words up in the head's own codes."""
    for user, index in list(weight.uses()):
        if user.op_type != "Gather" or index != 0:
            continue
        shape = add_initializer(graph, f"{codes.name}.shape", np.array([0, -1], np.int64))
        flat = ir.node("Reshape", [codes, shape])
        look_up = ir.node(
            "GatherBlockQuantized",
            [flat.outputs[0], user.inputs[1], scales],
            domain="com.microsoft",
            attributes={"bits": bits, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1},
        )
        graph.insert_before(user, [flat, look_up])
        take_over(user.outputs[0], look_up.outputs[0])


def _store_half(model: ir.Model) -> None:
    for weight, array in _large_weights(model):
        half = array.astype(np.float16)
        widen = ir.node("Cast", [weight], attributes={"to": int(ir.DataType.FLOAT)})
        _store(model.graph, weight, half, widen)


def _store_int8(model: ir.Model) -> None:
    for weight, array in _large_weights(model):
        axis = _output_axis(weight, array.ndim)
        others = tuple(i for i in range(array.ndim) if i != axis)
        scale = np.abs(array).max(axis=others, keepdims=True) / np.float32(127)
        scale[scale == 0] = 1
        codes = np.rint(array / scale).astype(np.int8)
        scales = add_initializer(model.graph, f"{weight.name}.scale", scale.reshape(-1))
        widen = ir.node("DequantizeLinear", [weight, scales], attributes={"axis": axis})
        _store(model.graph, weight, codes, widen)


def _output_axis(weight: ir.Value, rank: int) -> int:
    is_input_major = any(user.op_type == "MatMul" and index == 1 for user, index in weight.uses())
    return rank - 1 if is_input_major else 0


def _large_weights(model: ir.Model) -> list[tuple[ir.Value, NDArray[np.float32]]]:
    return [
        (value, value.const_value.numpy())
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and value.const_value.dtype == ir.DataType.FLOAT
        and value.const_value.size >= _LARGE
        and not (value.name or "").endswith((".scale", ".scales"))
        and list(value.uses())
    ]


def _store(graph: ir.Graph, weight: ir.Value, small: NDArray[np.generic], widen: ir.Node) -> None:
    """Keep `small` under the weight's own name, and give what `widen` makes of it to its users."""
    uses = [(user, index) for user, index in weight.uses() if user is not widen]
    wide = widen.outputs[0]
    wide.name = f"{weight.name}.widened"
    wide.type, wide.shape = ir.TensorType(ir.DataType.FLOAT), weight.shape
    graph.insert_before(graph[0], widen)
    for user, index in uses:
        user.replace_input_with(index, wide)
    weight.const_value = ir.tensor(small, name=weight.name)
    weight.type = ir.TensorType(weight.const_value.dtype)
