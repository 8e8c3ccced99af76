"""A GPT-2-small captioner with random weights: ours, `transformers`, and recomputing everything.

Prefix of 10 vectors, 12 new tokens. The recompute loop is what ClipCap's `predict.py` does: no
cache, the whole model over the whole text at every token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.machine import bandwidth, has_vnni
from benchmarks.timing import bar, medians
from capsmith.export.graphs import export_decoder
from capsmith.export.quantize import Precision, quantize
from capsmith.models.gpt2 import load_gpt2
from capsmith.runtime.decoding import Rules, decode
from capsmith.runtime.engine import OnnxEngine
from capsmith.runtime.session import open_session
from capsmith.types import Beam, Greedy, Strategy

PREFIX, TOKENS, WIDTH = 10, 12, 768
RULES = Rules(max_tokens=TOKENS)
PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "int4")
# (recompute loop, generate) with AVX-512 VNNI and with AVX2 alone; None where there is no bar.
BARS = {
    "one picture, greedy": ((10, 4), (6, 2)),
    "one picture, beam 5": ((10, 3), (6, 2)),
    "32 pictures, greedy": ((None, 1.5), (None, 1.2)),
}


def run(folder: Path, *, threads: int, repeats: int) -> None:
    """Print the table. Graphs are written to `folder`, and reused where they are there."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0))
    model.eval()
    paths = _graphs(model, folder)
    engines = {name: OnnxEngine(open_session(p, threads=threads)) for name, p in paths.items()}
    steps = {}
    for name, rows, strategy in (
        ("one picture, greedy", 1, Greedy()),
        ("one picture, beam 5", 1, Beam(size=5)),
        ("32 pictures, greedy", 32, Greedy()),
    ):
        prefix = np.random.default_rng(1).normal(size=(rows, PREFIX, WIDTH)).astype(np.float32)
        beams = strategy.size if isinstance(strategy, Beam) else 1
        contenders = _contenders(model, engines, prefix, strategy, beams)
        _check_captions(model, engines["float32"], prefix, strategy, beams)
        times = medians(contenders, repeats)
        _print(name, times, rows)
        steps[name] = times
    _print_limit(paths, steps["one picture, greedy"])


def _graphs(model: Any, folder: Path) -> dict[Precision, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"gpt2-{name}.onnx" for name in PRECISIONS}
    full = paths["float32"]
    if not full.exists():
        export_decoder(load_gpt2(model.state_dict(), heads=model.config.n_head), full)
    for name, path in paths.items():
        if not path.exists():
            ir.save(quantize(ir.load(full), name), path)
    return paths


def _contenders(
    model: Any,
    engines: Mapping[Precision, OnnxEngine],
    prefix: np.ndarray,
    strategy: Strategy,
    beams: int,
) -> dict[str, Callable[[], object]]:
    vectors = torch.from_numpy(prefix)
    contenders: dict[str, Callable[[], object]] = {
        f"capsmith {name}": partial(decode, engine, prefix, strategy, RULES)
        for name, engine in engines.items()
    }
    contenders["transformers generate"] = lambda: generate(model, vectors, beams)
    if len(prefix) == 1:
        contenders["recompute everything"] = lambda: recompute(model, vectors, beams)
    return contenders


@torch.inference_mode()
def generate(model: Any, prefix: Tensor, beams: int) -> Tensor:
    """Token ids (B, TOKENS) by `transformers`, with its cache and scaled-dot-product attention."""
    tokens: Tensor = model.generate(
        inputs_embeds=prefix,
        attention_mask=torch.ones(prefix.shape[:2], dtype=torch.int64),
        do_sample=False,
        num_beams=beams,
        min_new_tokens=TOKENS,
        max_new_tokens=TOKENS,
        pad_token_id=0,
    )
    return tokens


@torch.inference_mode()
def recompute(model: Any, prefix: Tensor, beams: int) -> Tensor:
    """Token ids (beams, TOKENS) without a cache."""
    text, scores, tokens = prefix, torch.zeros(1, 1), torch.zeros(1, 0, dtype=torch.int64)
    for _ in range(TOKENS):
        logprobs = model(inputs_embeds=text).logits[:, -1].log_softmax(-1)
        scores, best = (scores + logprobs).view(-1).topk(beams)
        rows, words = best // logprobs.shape[1], best % logprobs.shape[1]
        scores, tokens = scores[:, None], torch.cat([tokens[rows], words[:, None]], 1)
        text = torch.cat([text[rows], model.transformer.wte(words)[:, None]], 1)
    return tokens


def _check_captions(
    model: Any, engine: OnnxEngine, prefix: np.ndarray, strategy: Strategy, beams: int
) -> None:
    """Stop unless our float32 gives the very tokens that the others give."""
    ours = [list(found[0].token_ids) for found in decode(engine, prefix, strategy, RULES)]
    vectors = torch.from_numpy(prefix)
    theirs = {"generate": generate(model, vectors, beams).tolist()}
    if len(prefix) == 1:
        theirs["recompute"] = recompute(model, vectors, beams)[:1].tolist()
    for name, tokens in theirs.items():
        if tokens != ours:
            raise SystemExit(f"captions differ: capsmith {ours}, {name} {tokens}")


def _print(name: str, times: dict[str, float], pictures: int) -> None:
    print(f"\n{name}: milliseconds a picture, float32 captions identical")
    ours = {key: value for key, value in times.items() if key.startswith("capsmith")}
    for key, seconds in times.items():
        print(f"  {key:24s} {seconds / pictures * 1e3:9.1f}")
    best = min(ours, key=ours.__getitem__)
    against_recompute, against_generate = BARS[name][0 if has_vnni() else 1]
    print(f"  {best} against transformers generate:", end=" ")
    print(bar(times["transformers generate"] / ours[best], against_generate))
    if against_recompute is not None:
        print(f"  {best} against recompute everything:", end=" ")
        print(bar(times["recompute everything"] / ours[best], against_recompute))


def _print_limit(paths: Mapping[Precision, Path], times: dict[str, float]) -> None:
    speed = bandwidth()
    print(f"\nmemory bandwidth {speed / 1e9:.1f} GB/s; one picture, greedy, a token:")
    for name, path in paths.items():
        size = _bytes_a_token(path)
        least, took = size / speed, times[f"capsmith {name}"] / TOKENS
        print(
            f"  {name:8s} reads {size / 1e6:6.1f} MB: {least * 1e3:5.1f} ms at least,"
            f" {took * 1e3:5.1f} ms taken ({took / least:.1f} times the limit)"
        )


def _bytes_a_token(path: Path) -> int:
    """Bytes of all weights that products read; of tables that are looked up, next to nothing."""
    graph = onnx.load(path).graph
    looked_up = {node.input[0] for node in graph.node if "Gather" in node.op_type}
    multiplied = {
        name for node in graph.node if "Gather" not in node.op_type for name in node.input
    }
    return sum(
        len(tensor.raw_data)
        for tensor in graph.initializer
        if tensor.name in multiplied or tensor.name not in looked_up
    )
