"""Classifiers of torchvision without their last layer ("beheaded"): one row a picture.

    inception_v3                    2048   mean over the last feature map
    resnet18, resnet34               512   the same; 2048 for resnet50, 101, 152 and their wide and
                                           ResNeXt relatives
    vgg11 ... vgg19, with and       4096   the last hidden layer, after its ReLU
    without _bn; alexnet

The vectors are those of the published networks in evaluation mode, where dropout does nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from capsmith.bundle import Preprocessing
from capsmith.errors import CheckpointError, ConfigError
from capsmith.models.failures import first_sentence
from capsmith.models.image_encoder import ImageEncoder, Output, check_output, three
from capsmith.models.optional_library import optional_library

_PREFIXES: Final = ("inception_v3", "resnet", "resnext", "wide_resnet", "vgg", "alexnet")


class TorchvisionEncoder(ImageEncoder):
    """A classifier's vector before its last layer, as float32 (B, 1, d)."""

    def __init__(self, network: nn.Module, *, name: str, preprocessing: Preprocessing):
        super().__init__(name=name, preprocessing=preprocessing)
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        vector: Tensor = self.network(pixels)
        return vector[:, None]


def torchvision_encoder(
    name: str, weights: str, *, output: Output, random: bool
) -> TorchvisionEncoder:
    """The network `name` of torchvision without its last layer.

    weights: "" for the library's default ones, or the name of others ("IMAGENET1K_V1"), or a file
    that holds the state dict of the whole classifier. The short side of a picture is brought to the
    network's own, without the margin that torchvision cuts off: more of the picture is seen.
    """
    label = f"torchvision:{name}"
    models = optional_library("torchvision", wanted_by=label, install="torchvision").models
    names = [known for known in models.list_models(models) if known.startswith(_PREFIXES)]
    if name not in names:
        raise ConfigError(f"{label}: not one of {', '.join(names)}")
    check_output(output, ("pooled",), label)
    published = models.get_model_weights(name)
    is_file = Path(weights).is_file()
    tags = published.__members__
    if weights not in ("", *tags) and not is_file and not random:
        raise ConfigError(
            f"{label} has no weights {weights}; give a file or one of {', '.join(tags)}"
        )
    chosen = published[weights] if weights in tags else published.DEFAULT
    # With its own weights Inception shifts colours to [-1, 1] itself; so must random ones.
    options = {"transform_input": True, "init_weights": False} if "inception" in name else {}
    network = models.get_model(name, weights=None, **options)
    if not random:
        _load(network, _state(weights, chosen, label), weights or chosen.name, label)
    tag = "" if random else f"@{Path(weights).stem or chosen.name}"
    return TorchvisionEncoder(
        _beheaded(network),
        name=f"{label}{tag}:{output}",
        preprocessing=_preprocessing(chosen.transforms()),
    )


def _beheaded(network: Any) -> nn.Module:
    if hasattr(network, "AuxLogits"):
        network.AuxLogits, network.aux_logits = None, False
    if hasattr(network, "fc"):
        network.fc = nn.Identity()
    else:
        network.classifier[-1] = nn.Identity()
    return cast(nn.Module, network)


def _state(weights: str, chosen: Any, label: str) -> dict[str, Tensor]:
    try:
        if Path(weights).is_file():
            state = torch.load(weights, map_location="cpu", weights_only=True)
        else:
            state = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # unpickling and downloading fail in many ways
        raise CheckpointError(
            f"{label}: cannot load {weights or chosen.url} ({first_sentence(error)}); download its"
            " weights beforehand and name the file"
        ) from None
    return cast(dict[str, Tensor], state)


def _load(network: nn.Module, state: dict[str, Tensor], weights: str, label: str) -> None:
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{label}: {weights} is not its state dict ({first_sentence(error)}); name another file"
        ) from None


def _preprocessing(transform: Any) -> Preprocessing:
    """What the transform of published weights does, its margin aside."""
    side = int(transform.crop_size[0])
    return Preprocessing(
        width=side,
        height=side,
        resize="crop",
        interpolation=transform.interpolation.value,
        mean=three(transform.mean),
        std=three(transform.std),
    )
