"""A bundle with a text tower: the same captioner, two files and a section more."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import tokenizers
import torch

from capsmith.bundle import Bundle, Description, TextTower, write_bundle
from capsmith.errors import BundleError
from capsmith.export.graphs import export_text_tower
from capsmith.export.parity import compare_outputs
from capsmith.models import text_tower as models

_TOLERANCE = 0.3
"""Of vectors in 8 bits, in standard deviations of their values; a graph beyond it is refused."""


def add_text_tower(
    bundle: Bundle,
    tower: models.TextTower,
    tokenizer: tokenizers.Tokenizer,
    section: TextTower,
    folder: Path,
    *,
    sample: torch.Tensor,
    provenance: Mapping[str, str],
) -> Bundle:
    """Write `bundle` with a tower, in the place of the one it may have, into a new folder.

    The tower's weights are stored in 8 bits and widened at load. sample: tokens int64 (n, length)
    on which graph and module are compared. provenance: added to the bundle's. Raises `BundleError`
    where the tower gives vectors of another width than the encoder, the graph differs by more than
    its precision explains, or the folder exists.
    """
    width = tower.projection.out_features
    if width != bundle.encoder.width:
        raise BundleError(
            f"{bundle.folder}: embeds pictures in {bundle.encoder.width} numbers, and the tower"
            f" texts in {width}; train the tower on this encoder"
        )
    with tempfile.TemporaryDirectory() as temporary:
        graph = Path(temporary, "text.onnx")
        export_text_tower(tower, graph, precision="int8-stored")
        off = compare_outputs(tower, graph, sample, tolerance=_TOLERANCE)
        files: dict[str, Path | bytes] = {name: bundle.folder / name for name in bundle.files}
        files |= {"text.onnx": graph, "text_tokenizer.json": tokenizer.to_str().encode()}
        facts = {
            **bundle.provenance,
            **provenance,
            "text tower: largest difference of a value": f"{off:.2g} standard deviations",
        }
        plain = Description.to_dict(replace(bundle, text_tower=section, provenance=facts))
        return write_bundle(folder, plain, files)
