"""An encoder that is a module, as what makes a store of features (`data.embed`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from PIL import Image
from torch import nn

from capsmith.data.store import EncoderFacts, Floats, hash_of
from capsmith.errors import ConfigError
from capsmith.models.image_encoder import ImageEncoder
from capsmith.runtime.preprocess import to_pixels

# A processor's caches hold the maps of few pictures; a graphics card wants many.
_ON_CPU, _ON_CUDA = 2, 64


class TorchFeatureEncoder:
    """A `data.embed.FeatureEncoder` on the processor or a CUDA device.

    device: "cpu", "cuda", or "auto", which is CUDA where there is one. Raises `ConfigError` for
    one that is not there.
    """

    def __init__(self, encoder: ImageEncoder, *, device: str = "auto") -> None:
        has_cuda = torch.cuda.is_available()
        if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not has_cuda):
            there = "auto, cpu and cuda" if has_cuda else "auto and cpu"
            raise ConfigError(f"device {device} is not there for this encoder; use {there}")
        self._device = "cuda" if has_cuda and device != "cpu" else "cpu"
        self._encoder = encoder.to(self._device).eval()
        self._at_once = _ON_CUDA if self._device == "cuda" else _ON_CPU
        self.size = (encoder.preprocessing.width, encoder.preprocessing.height)
        self.facts = EncoderFacts(
            name=f"{encoder.name}@{hash_of_weights(encoder)[:16]}",
            preprocessing=hash_of(asdict(encoder.preprocessing)),
            rows=encoder.rows,
            width=encoder.width,
        )

    def encode(self, pictures: Sequence[Image.Image]) -> Floats:
        """Features float32 (n, rows, width) of n upright RGB pictures of any size."""
        pixels = np.stack([to_pixels(one, self._encoder.preprocessing) for one in pictures])
        # Convolutions run twice as fast where the channels of a place lie together.
        batch = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            parts = [
                self._encoder(part.to(self._device)).float().cpu()
                for part in torch.split(batch, self._at_once)
            ]
        made: Floats = torch.cat(parts).numpy()
        return made


def hash_of_weights(module: nn.Module) -> str:
    """SHA-256 (hex) of the names, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
