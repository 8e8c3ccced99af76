"""Fewer, larger operators: at one token a step, every small node costs as much as real work."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from capsmith.export.edits import add_initializer, only_user, take_over
from capsmith.models.graph_weights import constant


def fuse(model: ir.Model) -> ir.Model:
    """Fuse attention with its cache and the splitting of heads, and sums with the norm after them.

    Changes no parameter and, but for the order of sums, no result.
    """
    for node in list(model.graph):
        if node.op_type in ("Gather", "GatherND"):
            _select_rows(model.graph, node)
    for node in list(model.graph):
        if node.op_type == "Attention" and not node.domain:
            _fuse_cache(model, node)
        elif node.op_type == "LayerNormalization":
            _fuse_sum_and_norm(model, node)
        elif node.op_type == "Sub":
            _normalise_scores(model.graph, node)
    _copy_memory_once(model.graph)
    passes.RemoveUnusedNodesPass()(model)
    return model


def _select_rows(graph: ir.Graph, node: ir.Node) -> None:
    """Both spellings of "take these rows" become Gather along axis 0, which copies whole rows."""
    data, index = node.inputs
    view = index.producer() if index is not None else None
    spelling = (node.op_type, view.op_type if view is not None else None)
    if view is None or spelling not in {("GatherND", "Unsqueeze"), ("Gather", "Reshape")}:
        return
    rows = view.inputs[0]
    is_first_axis = not node.attributes.get_int("axis", 0)
    if rows is not None and rows.shape is not None and len(rows.shape) == 1 and is_first_axis:
        plain = ir.node("Gather", [data, rows], attributes={"axis": 0})
        graph.insert_before(node, plain)
        take_over(node.outputs[0], plain.outputs[0])


def _fuse_cache(model: ir.Model, node: ir.Node) -> None:
    """Let the operator split the heads and, in self-attention, lengthen the cache itself.

    Attention(heads(q), Concat(past_k, heads(k)), Concat(past_v, heads(v)), mask), joined again, is
    one Attention of q, k, v with a past, whose further outputs are the longer cache. That operator
    refuses k and v of no length, which attention to a memory has after the first step; there only
    the splitting of q is fused.
    """
    query, key, value, *mask = node.inputs
    flat_query = _unsplit(query)
    join = only_user(only_user(node, "Transpose"), "Reshape")
    if flat_query is None or join is None or query is None or key is None or value is None:
        return
    old_key, old_value = _grown(key), _grown(value)
    heads = int(str(_size(query, 1)))
    if old_key is not None and old_value is not None and _size(old_key[1], 1) == _size(query, 2):
        attributes: dict[str, int | float] = {"q_num_heads": heads, "kv_num_heads": heads}
        inputs = [flat_query, old_key[1], old_value[1], mask[0] if mask else None]
        fused = ir.node(
            "Attention",
            [*inputs, old_key[0], old_value[0]],
            attributes=attributes | _scale(node),
            num_outputs=3,
        )
    elif not mask:
        fused = ir.node(
            "MultiHeadAttention",
            [flat_query, key, value],
            domain="com.microsoft",
            attributes={"num_heads": heads, **_scale(node)},
        )
        model.opset_imports["com.microsoft"] = 1
    else:
        return
    model.graph.insert_before(join, fused)
    for old, new in zip((join.outputs[0], key, value), fused.outputs, strict=False):
        take_over(old, new)


def _copy_memory_once(graph: ir.Graph) -> None:
    """Concat(Gather(memory, parents), fresh) becomes If(no prefix, Gather, Concat of Gather).

    `fresh` comes from the prefix, which later steps do not have: without the choice they would
    copy the whole memory a second time to add nothing to it.
    """
    prefix = next(value for value in graph.inputs if value.name == "prefix")
    grown = [node for node in graph if node.op_type == "Concat" and _gathered(node) is not None]
    if not grown:
        return
    size = ir.node("Shape", [prefix], attributes={"start": 1, "end": 2})
    none = add_initializer(graph, "no_rows", np.zeros(1, np.int64))
    is_read = ir.node("Equal", [size.outputs[0], none])
    graph.insert_before(next(iter(graph)), [size, is_read])
    for node in grown:
        gather = _gathered(node)
        assert gather is not None
        same, first = (
            ir.node("Gather", list(gather.inputs), attributes={"axis": 0}) for _ in range(2)
        )
        axis = node.attributes.get_int("axis")
        longer = ir.node("Concat", [first.outputs[0], node.inputs[1]], attributes={"axis": axis})
        choice = ir.node(
            "If",
            [is_read.outputs[0]],
            attributes={
                "then_branch": _branch([same], node.outputs[0]),
                "else_branch": _branch([first, longer], node.outputs[0]),
            },
        )
        graph.insert_before(node, choice)
        take_over(node.outputs[0], choice.outputs[0])


def _gathered(node: ir.Node) -> ir.Node | None:
    """The Gather of Concat(Gather(memory, parents), fresh), which nothing else reads."""
    if len(node.inputs) != 2 or node.inputs[0] is None or len(list(node.inputs[0].uses())) != 1:
        return None
    gather = node.inputs[0].producer()
    if gather is None or gather.op_type != "Gather":
        return None
    state = gather.inputs[0]
    # A cache of words that is not fused grows at every step.
    is_memory = state is not None and state.shape is not None and "memory" in map(str, state.shape)
    return gather if is_memory else None


def _branch(nodes: list[ir.Node], like: ir.Value) -> ir.Graph:
    name = f"{like.name}.{'grown' if len(nodes) > 1 else 'same'}"
    for node in nodes:  # a name may stand once, in subgraphs too
        node.outputs[0].name = f"{name}.{node.op_type}"
        node.outputs[0].type = like.type
    return ir.Graph([], [nodes[-1].outputs[0]], nodes=nodes, name=name)


def _fuse_sum_and_norm(model: ir.Model, node: ir.Node) -> None:
    """LayerNormalization(skip + (x + bias)) is one operator, which gives the sum as well."""
    total = node.inputs[0]
    add = total.producer() if total is not None else None
    if (
        add is None
        or add.op_type != "Add"
        or any(constant(value) is not None for value in add.inputs)
    ):
        return
    skip, x = add.inputs
    if skip is None or x is None or skip.shape != x.shape:
        return
    bias = None
    inner = x.producer() if len(list(x.uses())) == 1 else None
    if inner is not None and inner.op_type == "Add" and constant(inner.inputs[1]) is not None:
        x, bias = inner.inputs
    fused = ir.node(
        "SkipLayerNormalization",
        [x, skip, node.inputs[1], node.inputs[2], bias],
        domain="com.microsoft",
        attributes={"epsilon": node.attributes.get_float("epsilon", 1e-5)},
        num_outputs=4,
    )
    model.opset_imports["com.microsoft"] = 1
    model.graph.insert_before(add, fused)
    assert total is not None
    fused.outputs[1].name = fused.outputs[2].name = ""
    take_over(node.outputs[0], fused.outputs[0])
    take_over(total, fused.outputs[3])


def _normalise_scores(graph: ir.Graph, node: ir.Node) -> None:
    """TopK(x) - ReduceLogSumExp(x) is LogSoftmax(x) at the indices of TopK, 3 to 5 times as fast:
    onnxruntime has a vectorised kernel for the one and a plain loop for the other."""
    top, total = (value.producer() if value is not None else None for value in node.inputs)
    if top is None or total is None or (top.op_type, total.op_type) != ("TopK", "ReduceLogSumExp"):
        return
    axis = top.attributes.get_int("axis", -1)
    scores = top.inputs[0]
    if scores is None or scores is not total.inputs[0] or node.inputs[0] is not top.outputs[0]:
        return
    if scores.shape is None or axis not in (-1, len(scores.shape) - 1):
        return
    normal = ir.node("LogSoftmax", [scores], attributes={"axis": -1})
    picked = ir.node(
        "GatherElements", [normal.outputs[0], top.outputs[1]], attributes={"axis": axis}
    )
    graph.insert_before(node, [normal, picked])
    take_over(node.outputs[0], picked.outputs[0])


def _size(value: ir.Value, axis: int) -> int | ir.SymbolicDim:
    assert value.shape is not None
    return value.shape[axis]


def _scale(node: ir.Node) -> dict[str, float]:
    return {"scale": node.attributes.get_float("scale")} if "scale" in node.attributes else {}


def _unsplit(value: ir.Value | None) -> ir.Value | None:
    """x of Transpose(Reshape(x)), which splits (N, T, width) into (N, heads, T, head)."""
    transpose = value.producer() if value is not None else None
    if transpose is None or transpose.op_type != "Transpose":
        return None
    if list(transpose.attributes["perm"].as_ints()) != [0, 2, 1, 3]:
        return None
    split = transpose.inputs[0].producer() if transpose.inputs[0] is not None else None
    return split.inputs[0] if split is not None and split.op_type == "Reshape" else None


def _grown(value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """(past, x) of Concat(past, heads of x)."""
    concat = value.producer() if value is not None else None
    if concat is None or concat.op_type != "Concat" or len(concat.inputs) != 2:
        return None
    past, fresh = concat.inputs[0], _unsplit(concat.inputs[1])
    return (past, fresh) if past is not None and fresh is not None else None
