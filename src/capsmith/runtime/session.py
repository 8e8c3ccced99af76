"""The only maker of ONNX sessions: what a graph may hold, which device runs it, with which threads.

A graph is data from somewhere else. Before onnxruntime sees it, every node's operator is compared
with an allow-list and every external-data entry with the folder, by `graph_contents`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import onnxruntime as ort

from capsmith.errors import BundleError, ConfigError
from capsmith.runtime.graph_contents import GraphContents, MalformedGraphError, read_graph_contents

MAX_THREADS = 1024
"""Far more than a machine has; a hundred thousand would not end in an error but in a standstill."""

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

# What capsmith's own export writes beyond standard ONNX; all are plain arithmetic.
MICROSOFT_OPERATORS = frozenset(
    {
        "GatherBlockQuantized",
        "MatMulNBits",
        "MultiHeadAttention",
        "SkipLayerNormalization",
    }
)

# Best first: the order in which "auto" chooses.
_PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


def available_devices() -> tuple[str, ...]:
    """Devices that the installed onnxruntime offers, best first; "cpu" is always among them."""
    offered = set(ort.get_available_providers())
    return tuple(device for device, provider in _PROVIDERS.items() if provider in offered)


def usable_cpus() -> int:
    """CPUs that this process may run on, which in a container are fewer than the machine's."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_session(
    path: Path, *, threads: int | None = None, device: str = "auto"
) -> ort.InferenceSession:
    """Check the graph at `path` and make a session that runs it.

    threads: threads inside an operator; None means every CPU that the process may use.
    device: one of `available_devices()`, or "auto" for the first of them.

    Raises `ConfigError` for a device that is absent and a number of threads that makes no sense,
    and `BundleError` for a file that is missing, broken, or holds what it must not.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"threads is {threads}; give 1 to {MAX_THREADS}, or leave it out")
    providers = _providers(device)
    check_graph(path)
    try:
        return ort.InferenceSession(
            os.fspath(path), sess_options=_options(threads), providers=providers
        )
    except Exception as error:  # onnxruntime's errors share no narrower base class
        raise BundleError(f"{path}: onnxruntime cannot load this graph: {_line(error)}") from error


def check_graph(path: Path) -> GraphContents:
    """Read which operators and external files the graph at `path` names, and refuse strange ones.

    Raises `BundleError`; see the module docstring.
    """
    try:
        contents = read_graph_contents(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BundleError(f"{path}: cannot read the graph: {reason}") from error
    except MalformedGraphError as error:
        raise BundleError(f"{path}: not a whole ONNX file ({error}); fetch it again") from error
    for domain, operator in sorted(contents.operators):
        if not _is_allowed(domain, operator):
            name = f"{domain}.{operator}" if domain else operator
            raise BundleError(f"{path}: operator {name} is not allowed in a bundle")
    for location in sorted(contents.external_files):
        _check_external(path, location)
    return contents


def _is_allowed(domain: str, operator: str) -> bool:
    return domain in STANDARD_DOMAINS or (
        domain == "com.microsoft" and operator in MICROSOFT_OPERATORS
    )


def _check_external(path: Path, location: str) -> None:
    """External weights must be a plain file directly beside the graph."""
    data = path.parent / location
    is_beside = location not in {"", ".", ".."} and not set(location) & set("/\\:\0")
    if not is_beside or data.is_symlink():
        raise BundleError(f"{path}: external data {location!r} lies outside the bundle's folder")
    if not data.is_file():
        raise BundleError(f"{path}: external data {location!r} is missing; fetch the bundle again")


def _providers(device: str) -> list[str]:
    present = available_devices()
    chosen = present[0] if device == "auto" else device
    if chosen not in present:
        raise ConfigError(
            f"device {device!r} is not offered by the installed onnxruntime; "
            f"choose one of: auto, {', '.join(present)}"
        )
    # The CPU takes the operators that the device lacks.
    return list(dict.fromkeys([_PROVIDERS[chosen], _PROVIDERS["cpu"]]))


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A pattern is remembered for every input shape ever seen, and captions have many lengths:
    # without patterns memory does not grow with the number of photos.
    options.enable_mem_pattern = False
    # A thread that sleeps takes longer to wake than a product of one decoding step takes, so
    # threads spin while they wait for work, but not for long: a captioner has three sessions, each
    # with its own threads, and those that spin take the cores from the session that has work.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
    # Weights stored in 8 bits are widened once, at load, not at every run.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
