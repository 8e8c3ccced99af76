"""Small edits of a graph that fusion and quantisation share."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Give `new` the name, type and every use of `old`."""
    new.type, new.shape = old.type, old.shape
    name, old.name = old.name, f"{old.name}.replaced"
    new.name = name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """A constant of the graph called `name`; the one that is there, if it is."""
    if name in graph.initializers:
        return graph.initializers[name]
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape = ir.Shape(array.shape)
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    graph.register_initializer(value)
    return value


def only_user(node: ir.Node | None, operator: str) -> ir.Node | None:
    """The one node that reads the first output of `node`, where it is an `operator`."""
    users = list(node.outputs[0].uses()) if node is not None else []
    return users[0].node if len(users) == 1 and users[0].node.op_type == operator else None
