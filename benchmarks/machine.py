"""What was measured on: processor, versions, memory bandwidth."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from pathlib import Path

_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
_PACKAGES = ("capsmith", "onnxruntime", "numpy", "pillow", "torch", "transformers")


def cpu_flags() -> list[str]:
    """The vector extensions that the kernels here choose by."""
    info = Path("/proc/cpuinfo")
    present = set(info.read_text().split()) if info.exists() else set()
    return [flag for flag in _FLAGS if flag in present]


def has_vnni() -> bool:
    """Whether the processor multiplies 8-bit numbers in AVX-512 registers: it has higher bars."""
    return "avx512_vnni" in cpu_flags()


def describe(threads: int) -> str:
    """One paragraph for the head of a result."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return (
        f"{platform.system()} {platform.machine()}, {model or platform.processor()}"
        f" ({' '.join(cpu_flags()) or 'flags unknown'}), {threads} threads\n"
        f"Python {platform.python_version()}, {versions}"
    )


def bandwidth(size_bytes: int = 1 << 30) -> float:
    """Bytes a second that torch's threads read from memory: the best of five sums over 1 GB."""
    import torch

    numbers = torch.ones(size_bytes // 4)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - begin)
    return size_bytes / best
