"""What every image encoder is: a module from pixels to features that knows their shape."""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from capsmith.bundle import Preprocessing
from capsmith.errors import ConfigError

Output = Literal["embedding", "pooled", "patches"]
"""What an encoder gives of a picture.

embedding  one row: the vector in the space shared with text (ClipCap, CapDec)
pooled     one row: the vision tower's pooled output, before any projection (CLIPxGPT), or the
           vector that a classifier would read (the LSTM captioners)
patches    the pooled row, then one row a patch, row by row of the picture
"""


class ImageEncoder(nn.Module):
    """Pixels float32 (B, 3, height, width) to features float32 (B, rows, width).

    name: tells it from other encoders. preprocessing: how a picture becomes pixels. Batch norms
    keep their stored statistics in training too, so that one photo never changes another.
    """

    def __init__(self, *, name: str, preprocessing: Preprocessing):
        super().__init__()
        self.name, self.preprocessing = name, preprocessing

    @property
    def rows(self) -> int:
        """Rows of features a picture."""
        return self._shape[0]

    @property
    def width(self) -> int:
        """Values a row."""
        return self._shape[1]

    def train(self, mode: bool = True) -> Self:
        """As in `nn.Module`, but for the batch norms."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    @cached_property
    def _shape(self) -> tuple[int, int]:
        """Rows and width, from a forward pass that computes nothing."""
        tensors = chain(self.named_parameters(), self.named_buffers())
        shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
        size = (1, 3, self.preprocessing.height, self.preprocessing.width)
        pixels = torch.zeros(size, device="meta")
        with torch.no_grad():
            features: Tensor = torch.func.functional_call(self, shapes, (pixels,))
        return features.shape[1], features.shape[2]


def check_output(output: str, allowed: tuple[Output, ...], encoder: str) -> None:
    """Raise `ConfigError` where the encoder does not give such an output."""
    if output in allowed:
        return
    if output not in get_args(Output):
        raise ConfigError(f'output is "{output}"; use one of {", ".join(get_args(Output))}')
    what = "no embedding shared with text" if output == "embedding" else f'no "{output}"'
    use = " or ".join(f'"{name}"' for name in allowed)
    raise ConfigError(f"{encoder} has {what}; use {use}")


def three(values: Any) -> tuple[float, float, float]:
    """The mean or deviation of the three colours."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue
