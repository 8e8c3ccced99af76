"""The captioner that ships: against BLIP-base, from the shell, and on folders of photos."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

import capsmith
from benchmarks.machine import has_vnni
from benchmarks.timing import bar, medians, timed
from capsmith.runtime.pictures import open_picture
from capsmith.runtime.preprocess import to_pixels
from capsmith.runtime.session import open_session

SHORT_SIDE = 640
MEGAPIXELS_12 = (4000, 3000)
LARGE_PHOTOS = 24


def run(
    folder: Path, *, photos: Path | None, model: str | None, threads: int, repeats: int
) -> None:
    """Print every line. `photos`: a tar or a folder of photos; without it the folders are left
    out, and the single photo is drawn at random."""
    torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    single = folder / "photo.jpg"
    sources = _sources(photos)
    _scaled(sources[0] if sources else _noise(), SHORT_SIDE).save(single, quality=90)
    captioner = capsmith.load(model, threads=threads)
    _against_blip(captioner, single, repeats)
    _from_the_shell(single, model, repeats)
    if sources:
        medium = _write(folder / "medium", [_scaled(photo, SHORT_SIDE) for photo in sources])
        large = _write(
            folder / "large", [photo.resize(MEGAPIXELS_12) for photo in sources[:LARGE_PHOTOS]]
        )
        rate = _rate(captioner, medium)
        least = 40 if has_vnni() else 20
        print(f"\n{len(medium)} photos, short side {SHORT_SIDE} px: {rate:.1f} photos/s", end=" ")
        print(f"(bar {least}: {'passed' if rate >= least else 'MISSED'})")
        _where_the_time_goes(captioner, medium, threads)
        print(f"{len(large)} photos of 12 megapixels: {_rate(captioner, large):.1f} photos/s")
        _where_the_time_goes(captioner, large, threads)


def _against_blip(captioner: capsmith.Captioner, photo: Path, repeats: int) -> None:
    blip: Any = BlipForConditionalGeneration(BlipConfig())
    blip.eval()
    processor = BlipImageProcessorPil(size={"height": 384, "width": 384})
    tokens = len(captioner.caption(photo).token_ids) + 1

    @torch.inference_mode()
    def caption_with_blip() -> Any:
        pixels = processor(Image.open(photo).convert("RGB"), return_tensors="pt").pixel_values
        return blip.generate(pixel_values=pixels, min_new_tokens=tokens, max_new_tokens=tokens)

    times = medians(
        {"capsmith": lambda: captioner.caption(photo), "BLIP-base": caption_with_blip}, repeats
    )
    print(f"\none photo from a file, {tokens} tokens, milliseconds")
    print(f"  capsmith, its defaults         {times['capsmith'] * 1e3:9.1f}")
    print(f"  BLIP-base, 384 px, greedy      {times['BLIP-base'] * 1e3:9.1f}")
    print(f"  ratio {bar(times['BLIP-base'] / times['capsmith'], 30)}")


def _from_the_shell(photo: Path, model: str | None, repeats: int) -> None:
    command = [sys.executable, "-m", "capsmith", "caption", str(photo)]
    command += ["--model", model] if model else []
    seconds, peaks = [], []
    for _ in range(repeats + 1):
        measured = subprocess.run(
            [sys.executable, "-m", "benchmarks.shell", *command],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        took, peak, line = measured.stdout.rstrip("\n").split("\t", 2)
        if not line:
            raise SystemExit(f"no caption from {' '.join(command)}")
        seconds.append(float(took))
        peaks.append(float(peak))
    print(
        f"\ncapsmith caption photo.jpg: {_at_most(float(np.median(seconds[1:])), 1.2, 's')}", end=""
    )
    print(f" from process start to the line, peak memory {_at_most(max(peaks), 400, 'MB')}")


def _at_most(value: float, most: float, unit: str) -> str:
    outcome = "passed" if value <= most else "MISSED"
    return f"{value:.{0 if most > 10 else 2}f} {unit} (bar {most:g}: {outcome})"


def _rate(captioner: capsmith.Captioner, photos: list[Path]) -> float:
    """Photos a second, files to captions, the better of two rounds."""
    best = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        captions = sum(1 for _ in captioner.iter_captions(photos))
        best = max(best, captions / (time.perf_counter() - begin))
    return best


def _where_the_time_goes(captioner: capsmith.Captioner, photos: list[Path], threads: int) -> None:
    """Each part alone, one after the other: in use, photos are read while the graphs run."""
    preprocessing = captioner.bundle.preprocessing
    side = (preprocessing.width, preprocessing.height)
    encoder = open_session(captioner.bundle.folder / "encoder.onnx", threads=threads)
    parts: dict[str, float] = {}
    with timed(parts, "open (1 thread)"):
        images = [open_picture(photo, min_side=side) for photo in photos]
    with timed(parts, "resize (1 thread)"):
        pixels = [to_pixels(image, preprocessing)[None] for image in images]
    with timed(parts, "encode"):
        features = [encoder.run(None, {"pixels": one})[0] for one in pixels]
    with timed(parts, "map and decode, 16 at a time"):
        captioner.caption_features(np.concatenate(features))
    shares = ", ".join(f"{name} {t / len(photos) * 1e3:.1f}" for name, t in parts.items())
    print(f"  where the time goes, milliseconds a photo, each part alone: {shares}")


def _sources(photos: Path | None) -> list[Image.Image]:
    if photos is None:
        return []
    if photos.is_dir():
        contents = [path.read_bytes() for path in sorted(photos.glob("*.jpg"))]
    else:
        with tarfile.open(photos) as archive:
            members = sorted(archive.getmembers(), key=lambda member: member.name)
            files = [archive.extractfile(member) for member in members if member.isfile()]
            contents = [file.read() for file in files if file is not None]
    return [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]


def _noise() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)


def _scaled(photo: Image.Image, short_side: int) -> Image.Image:
    scale = short_side / min(photo.size)
    return photo.resize((round(photo.width * scale), round(photo.height * scale)))


def _write(folder: Path, photos: list[Image.Image]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.jpg" for number in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        photo.save(path, quality=90)
    return paths
