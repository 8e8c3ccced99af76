"""Tiny real bundles: every graph keeps to the contract, the weights are random."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tokenizers
from onnx import TensorProto, helper, numpy_helper

from capsmith.bundle import Bundle, read_bundle, write_bundle

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
WORDS = (
    *("a", "the", "two", "red", "small", "dog", "cat", "man", "woman", "child", "ball", "grass"),
    *("runs", "sits", "jumps", "plays", "on", "in", "with", "near", ",", ".", "and", "water"),
)
VOCABULARY = (*SPECIAL, *WORDS)
SIDE, ROWS, FEATURE_WIDTH, WIDTH, MAX_TOKENS = 32, 4, 8, 16, 12


def toy_bundle(
    folder: Path,
    *,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes | None] | None = None,
) -> Bundle:
    """Write a bundle that captions; fields are replaced, files added or (None) dropped."""
    if not changes and not files:
        shutil.copytree(_template(seed), folder)  # without flushing to disk each time
        return read_bundle(folder)
    contents: dict[str, bytes | None] = {**toy_files(seed), **(files or {})}
    kept = {name: data for name, data in contents.items() if data is not None}
    return write_bundle(folder, {**toy_description(), **(changes or {})}, kept)


@cache
def _template(seed: int) -> Path:
    kept = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, kept)
    return write_bundle(Path(kept, "toy"), toy_description(), toy_files(seed)).folder


def toy_description() -> dict[str, Any]:
    return {
        "name": "toy",
        "version": "1.0.0",
        "languages": ["en", "de"],
        "licence": "CC0-1.0: random numbers",
        "provenance": {"made_by": "tests/bundles.py"},
        "encoder": {
            "name": "toy-patches",
            "rows": ROWS,
            "width": FEATURE_WIDTH,
            "embedding": "mean",
        },
        "preprocessing": {
            "width": SIDE,
            "height": SIDE,
            "resize": "squash",
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        "prefix": {"rows": ROWS, "width": WIDTH},
        "language_model": {
            "kind": "recurrent",
            "vocab_size": len(VOCABULARY),
            "max_tokens": MAX_TOKENS,
            "start_tokens": [1],
            "stop_tokens": [2],
            "never_tokens": [0, 1, 3],
            "precision": "float32",
        },
        "text": {
            "lowercase_prompt": True,
            "capitalise": True,
            "final_period": True,
            "join": " ",
        },
        "language_tokens": {"de": [VOCABULARY.index("water")]},
        "decoding": {"strategy": {"kind": "beam", "size": 3}, "limits": {}},
        "quirks": {},
    }


def toy_files(seed: int = 0) -> dict[str, bytes]:
    weights = np.random.default_rng(seed)
    return {
        "encoder.onnx": _encoder(weights),
        "mapper.onnx": _mapper(weights),
        "decoder.onnx": _decoder(weights),
        "tokenizer.json": word_tokenizer(VOCABULARY).to_str().encode(),
        "README.md": b"# toy\n\nRandom weights; captions mean nothing.\n",
        "LICENSE.md": b"CC0-1.0\n",
    }


def bundle_with_text_tower(folder: Path) -> Bundle:
    """The toy with a text tower."""
    section = {"languages": ["en"], "max_tokens": 8, "scale": 10.0}
    return toy_bundle(folder, changes={"text_tower": section}, files=text_tower_files())


def text_tower_files() -> dict[str, bytes]:
    """The two files of the toy's text tower; the tokenizer ends every text with <eos>."""
    tokenizer = word_tokenizer(VOCABULARY)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", VOCABULARY.index("<eos>"))]
    )
    return {"text.onnx": text_tower(), "text_tokenizer.json": tokenizer.to_str().encode()}


def text_tower(seed: int = 0) -> bytes:
    """A `text.onnx` for the toy: the mean of one vector a token."""
    vectors = np.random.default_rng(seed).normal(size=(len(VOCABULARY), FEATURE_WIDTH))
    return _model(
        [
            helper.make_node("Gather", ["vectors", "tokens"], ["found"]),
            helper.make_node("ReduceMean", ["found", "one"], ["embedding"], keepdims=0),
        ],
        inputs={"tokens": (TensorProto.INT64, ["batch", "length"])},
        outputs={"embedding": (TensorProto.FLOAT, ["batch", FEATURE_WIDTH])},
        weights={"vectors": vectors.astype(np.float32), "one": np.array([1], np.int64)},
    )


def word_tokenizer(vocabulary: tuple[str, ...]) -> tokenizers.Tokenizer:
    ids = {word: index for index, word in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _encoder(weights: np.random.Generator) -> bytes:
    patch = SIDE // 2
    kernel = weights.normal(size=(FEATURE_WIDTH, 3, patch, patch)) * 0.05
    return _model(
        [
            helper.make_node("Conv", ["pixels", "patches"], ["grid"], strides=[patch, patch]),
            helper.make_node("Reshape", ["grid", "shape"], ["columns"]),
            helper.make_node("Transpose", ["columns"], ["features"], perm=[0, 2, 1]),
        ],
        inputs={"pixels": (TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])},
        outputs={"features": (TensorProto.FLOAT, ["batch", ROWS, FEATURE_WIDTH])},
        weights={
            "patches": kernel.astype(np.float32),
            "shape": np.array([0, FEATURE_WIDTH, ROWS], np.int64),
        },
    )


def _mapper(weights: np.random.Generator) -> bytes:
    return _model(
        [helper.make_node("MatMul", ["features", "weight"], ["prefix"])],
        inputs={"features": (TensorProto.FLOAT, ["batch", ROWS, FEATURE_WIDTH])},
        outputs={"prefix": (TensorProto.FLOAT, ["batch", ROWS, WIDTH])},
        weights={"weight": weights.normal(size=(FEATURE_WIDTH, WIDTH)).astype(np.float32)},
    )


def _decoder(weights: np.random.Generator) -> bytes:
    """Remembers the sum of all it read; scores come from the sine of that sum."""
    size = len(VOCABULARY)
    bias = np.zeros(size, np.float32)
    bias[VOCABULARY.index("<eos>")] = 2.0
    return _model(
        [
            helper.make_node("Gather", ["state.sum", "parents"], ["kept"], axis=0),
            helper.make_node("Unsqueeze", ["kept", "one"], ["past"]),
            helper.make_node("Gather", ["vectors", "tokens"], ["words"], axis=0),
            helper.make_node("Concat", ["past", "prefix", "words"], ["all"], axis=1),
            helper.make_node("ReduceSum", ["all", "one"], ["next.sum"], keepdims=0),
            helper.make_node("Sin", ["next.sum"], ["hidden"]),
            helper.make_node("Gemm", ["hidden", "head", "bias"], ["logits"]),
            helper.make_node("LogSoftmax", ["logits"], ["logprobs"], axis=1),
            helper.make_node("TopK", ["logprobs", "top"], ["top_logprobs", "top_ids"], axis=1),
        ],
        inputs={
            "tokens": (TensorProto.INT64, ["rows", "length"]),
            "prefix": (TensorProto.FLOAT, ["rows", "prefix", WIDTH]),
            "parents": (TensorProto.INT64, ["rows"]),
            "top": (TensorProto.INT64, [1]),
            "state.sum": (TensorProto.FLOAT, ["old_rows", WIDTH]),
        },
        outputs={
            "top_logprobs": (TensorProto.FLOAT, ["rows", "top_count"]),
            "top_ids": (TensorProto.INT64, ["rows", "top_count"]),
            "logits": (TensorProto.FLOAT, ["rows", size]),
            "hidden": (TensorProto.FLOAT, ["rows", WIDTH]),
            "next.sum": (TensorProto.FLOAT, ["rows", WIDTH]),
        },
        weights={
            "vectors": weights.normal(size=(size, WIDTH)).astype(np.float32),
            "head": weights.normal(size=(WIDTH, size)).astype(np.float32),
            "bias": bias,
            "one": np.array([1], np.int64),
        },
    )


Shapes = Mapping[str, tuple[int, list[str | int]]]


def _model(
    nodes: list[onnx.NodeProto],
    *,
    inputs: Shapes,
    outputs: Shapes,
    weights: Mapping[str, np.ndarray[Any, Any]],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, *facts) for name, facts in inputs.items()],
        [helper.make_tensor_value_info(name, *facts) for name, facts in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def names(folder: Path) -> list[str]:
    """What lies in the folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def rewrite(folder: Path, edit: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Change captioner.json as a forger would: sizes, hashes and its checksum are made right."""
    path = folder / "captioner.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    for name in description["files"]:
        data = (folder / name).read_bytes()
        facts = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        description["files"][name] = facts
    edit(description)
    del description["description_sha256"]
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    description["description_sha256"] = hashlib.sha256(canonical.encode("ascii")).hexdigest()
    path.write_text(json.dumps(description, indent=1), encoding="utf-8")
