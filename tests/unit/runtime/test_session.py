"""Sessions are made only for graphs that hold what a bundle may hold."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from capsmith.errors import BundleError, ConfigError
from capsmith.runtime.session import available_devices, open_session

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def graph(
    *nodes: onnx.NodeProto, weights: dict[str, np.ndarray] | None = None, domain: str = ""
) -> onnx.ModelProto:
    """x float32 (n, 3) -> y; by default y = x @ weight."""
    body = list(nodes) or [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    model = helper.make_model(
        helper.make_graph(
            body,
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(array, name)
                for name, array in (weights or {"weight": WEIGHT}).items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 21), *_extra(domain)],
    )
    model.ir_version = 10
    return model


def _extra(domain: str) -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid(domain, 1)] if domain else []


def write(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external(location: str, folder: Path) -> Path:
    """The default graph with its weight said to lie in another file."""
    model = graph()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(WEIGHT.nbytes))
    return write(model, folder)


def run(session: ort.InferenceSession) -> np.ndarray:
    result: np.ndarray = session.run(None, {"x": np.eye(3, dtype=np.float32)})[0]
    return result


@pytest.mark.parametrize("threads", [None, 1, 2])
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_plain_graph_runs(tmp_path: Path, threads: int | None, device: str) -> None:
    session = open_session(write(graph(), tmp_path), threads=threads, device=device)
    np.testing.assert_array_equal(run(session), WEIGHT)
    if threads is not None:
        assert session.get_session_options().intra_op_num_threads == threads


def test_threads_default_to_the_cpus_of_the_process(tmp_path: Path) -> None:
    session = open_session(write(graph(), tmp_path))
    assert 1 <= session.get_session_options().intra_op_num_threads <= (os.cpu_count() or 1)


def test_devices_that_are_absent_and_no_threads_are_refused(tmp_path: Path) -> None:
    path = write(graph(), tmp_path)
    absent = {"cuda", "coreml", "directml"} - set(available_devices())
    assert "cpu" in available_devices()
    for device in (*absent, "tpu"):
        with pytest.raises(ConfigError, match=rf"'{device}' is not offered .* cpu$"):
            open_session(path, device=device)
    with pytest.raises(ConfigError, match="threads is 0"):
        open_session(path, threads=0)


@pytest.mark.parametrize(
    ("domain", "operator"),
    [("com.example", "Steal"), ("com.microsoft", "Sampling"), ("ai.onnx.ml", "Binarizer")],
)
def test_operators_outside_the_list_are_refused(tmp_path: Path, domain: str, operator: str) -> None:
    model = graph(helper.make_node(operator, ["x"], ["y"], domain=domain), domain=domain)
    with pytest.raises(BundleError, match=rf"graph.onnx: operator {domain}\.{operator} is not"):
        open_session(write(model, tmp_path))


def test_operators_are_found_in_branches_and_functions(tmp_path: Path) -> None:
    strange = helper.make_node("Steal", ["x"], ["z"], domain="com.example")
    out = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    branch = helper.make_graph([strange], "branch", [], out)
    yes = helper.make_node("Constant", [], ["yes"], value_int=1)
    cast = helper.make_node("Cast", ["yes"], ["is_so"], to=TensorProto.BOOL)
    choose = helper.make_node("If", ["is_so"], ["y"], then_branch=branch, else_branch=branch)
    nested = graph(yes, cast, choose, domain="com.example")
    function = graph()
    function.functions.append(
        helper.make_function(
            "local", "Hidden", ["x"], ["z"], [strange], [helper.make_opsetid("com.example", 1)]
        )
    )
    for model in (nested, function):
        with pytest.raises(BundleError, match=r"operator com\.example\.Steal is not allowed"):
            open_session(write(model, tmp_path))


def test_external_weights_beside_the_graph_are_read(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx.data").write_bytes(WEIGHT.tobytes())
    np.testing.assert_array_equal(run(open_session(external("graph.onnx.data", tmp_path))), WEIGHT)


@pytest.mark.parametrize("location", ["../secret", "sub/secret", "/etc/passwd", "C:\\x", "..", ""])
def test_external_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "bundle"
    (folder / "sub").mkdir(parents=True)
    for secret in (tmp_path / "secret", folder / "sub" / "secret"):
        secret.write_bytes(WEIGHT.tobytes())
    with pytest.raises(BundleError, match="lies outside the bundle's folder"):
        open_session(external(location, folder))


def test_external_weights_through_a_link_or_missing_are_refused(tmp_path: Path) -> None:
    path = external("graph.onnx.data", tmp_path)
    with pytest.raises(BundleError, match=r"'graph.onnx.data' is missing"):
        open_session(path)
    secret = tmp_path / "secret"
    secret.write_bytes(WEIGHT.tobytes())
    (tmp_path / "graph.onnx.data").symlink_to(secret)
    with pytest.raises(BundleError, match="lies outside"):
        open_session(path)


def test_broken_files_are_one_line(tmp_path: Path) -> None:
    whole = graph().SerializeToString()
    noise = np.random.default_rng(0).bytes(4000)
    path = tmp_path / "graph.onnx"
    cut = [whole[:length] for length in range(0, len(whole), 7)]
    for content in (b"", noise, b"\x00" * 64, whole + b"\x0f", *cut):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"graph\.onnx: ") as caught:
            open_session(path)
        assert "\n" not in str(caught.value)


def test_graphs_that_are_whole_but_wrong_are_one_line(tmp_path: Path) -> None:
    wrong = graph(helper.make_node("MatMul", ["x", "absent"], ["y"]))
    with pytest.raises(BundleError, match=r"onnxruntime cannot load this graph") as caught:
        open_session(write(wrong, tmp_path))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        open_session(tmp_path / "absent.onnx")
    with pytest.raises(BundleError, match="cannot read the graph"):
        open_session(tmp_path)


def test_deep_nesting_is_refused_not_followed(tmp_path: Path) -> None:
    inner = b"\x0a\x00"
    for _ in range(3000):  # Graph(7) > Node(1) > Attribute(5) > Graph(6) > ...
        inner = _field(1, _field(5, _field(6, inner)))
    path = tmp_path / "graph.onnx"
    path.write_bytes(_field(7, inner))
    with pytest.raises(BundleError, match="nested too deeply"):
        open_session(path)


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
