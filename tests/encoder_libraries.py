"""torchvision and open_clip for the tests: installed, or in a folder that pip filled beside."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "CAPSMITH_ENCODER_LIBRARIES"
_NAMES = ("torchvision", "open_clip")
# Operators that torchvision's Python code names while it is imported.
_OPERATORS = ("nms", "qnms")
_declared: list[torch.library.Library] = []


def require() -> None:
    """Make both libraries importable, or skip the test."""
    folder = Path(os.environ.get(VARIABLE, ROOT / ".encoders"))
    if not all(map(find_spec, _NAMES)) and folder.is_dir():
        sys.path.append(str(folder))
    missing = [name for name in _NAMES if find_spec(name) is None]
    if missing:
        pytest.skip(
            f"no {' and no '.join(missing)} installed or in {folder} (scripts/install-encoders"
            f" fills it; {VARIABLE} names another folder)"
        )
    _declare_operators()


def _declare_operators() -> None:
    """The operators of a torchvision built for CUDA do not load beside a PyTorch for the processor,
    and its import fails on their names; classifiers and transforms use none of them."""
    spec = find_spec("torchvision")
    if _declared or "torchvision" in sys.modules or spec is None or spec.origin is None:
        return
    try:
        torch.ops.load_library(Path(spec.origin).parent / "_C.so")
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in _OPERATORS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
