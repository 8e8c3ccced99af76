"""Weights of an exported graph, read back into the module that they came from."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from capsmith.errors import BundleError
from capsmith.runtime.session import check_graph


def load_weights(module: nn.Module, path: Path, *, without: Collection[str] = ()) -> None:
    """Fill `module` with the weights of the graph at `path`, of any precision, to train it on.

    without: parameters that captioning does not use, so that no graph has them. Exact for float32;
    within the error of quantisation for the others. What a graph never holds, the count of batches
    that a batch norm has seen, stays as it is. Raises `BundleError` for a
    graph that lacks one of the module's parameters or has it in another shape.
    """
    check_graph(path)
    found = _weights(ir.load(path))
    state = module.state_dict()
    for name, tensor in state.items():
        if name in without or not (tensor.is_floating_point() or name in found):
            continue
        if name not in found:
            raise BundleError(f"{path}: has no weight {name}; it is of another module")
        if found[name].shape != tuple(tensor.shape):
            raise BundleError(
                f"{path}: weight {name} is {found[name].shape} where the module has"
                f" {tuple(tensor.shape)}; it is of another module"
            )
        state[name] = torch.from_numpy(found[name]).to(tensor.dtype)
    module.load_state_dict(state)


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array that `value` is, where it is an initialiser."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    array: NDArray[Any] = value.const_value.numpy()
    return array


def widen_blocks(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], bits: int
) -> NDArray[np.float32]:
    """The weights float32 (N, blocks * block size) that codes and scales of blocks stand for."""
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], -1).reshape(*codes.shape[:2], -1)
    steps = codes.astype(np.float32) - np.float32(2 ** (bits - 1))
    wide: NDArray[np.float32] = (steps * scales[..., None]).reshape(len(codes), -1)
    return wide


def _weights(model: ir.Model) -> dict[str, NDArray[np.float32]]:
    """Every initialiser by the name of its parameter, wide again."""
    found: dict[str, NDArray[np.float32]] = {}
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            name, array = _product_weight(node)
            found[name] = array
        elif node.op_type == "DequantizeLinear":
            codes, scale = constant(node.inputs[0]), constant(node.inputs[1])
            if codes is not None and scale is not None and node.inputs[0] is not None:
                axis = node.attributes.get_int("axis", 1)
                shape = [-1 if index == axis else 1 for index in range(codes.ndim)]
                found[str(node.inputs[0].name)] = codes.astype(np.float32) * scale.reshape(shape)
    for name, value in model.graph.initializers.items():
        plain = constant(value)
        if name not in found and plain is not None:
            found[name] = plain.astype(np.float32)
    return found


def _product_weight(node: ir.Node) -> tuple[str, NDArray[np.float32]]:
    codes, scales = constant(node.inputs[1]), constant(node.inputs[2])
    assert codes is not None
    assert scales is not None
    assert node.inputs[1] is not None
    wide = widen_blocks(codes, scales, node.attributes["bits"].as_int())
    wide = wide[:, : node.attributes["K"].as_int()]
    name = str(node.inputs[1].name).removesuffix(".codes")
    if name.endswith(".transposed"):
        return name.removesuffix(".transposed"), np.ascontiguousarray(wide.T)
    return name, np.ascontiguousarray(wide)
