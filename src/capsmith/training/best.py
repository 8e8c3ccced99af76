"""The best captioner so far, as a bundle that can be used while training goes on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from capsmith.bundle import Bundle, read_bundle
from capsmith.data.manifest import Manifest
from capsmith.data.store import FeatureStore, read_description
from capsmith.errors import BundleError, ConfigError
from capsmith.export.captioner import Bits, Papers, export_captioner, write_encoder
from capsmith.models.policies import finished
from capsmith.registry import DEFAULT, open_bundle
from capsmith.runtime.engine import Floats
from capsmith.training import checkpoint
from capsmith.training.assembly import Assembly, put_together
from capsmith.training.config import Recipe
from capsmith.training.objectives import features_of
from capsmith.training.report import model_card
from capsmith.training.validation import Score

COMPARED = 8
"""Photos on which an exported bundle is compared with its modules."""


class BestBundle:
    """`OUTPUT/best`, replaced whenever a better captioner is found.

    An encoder that does not train is exported once, to OUTPUT/encoder.onnx, or is a bundle's.
    """

    def __init__(
        self, assembly: Assembly, train: Manifest, output: Path, features: Floats, *, base: Path
    ):
        self.assembly, self.train, self.features, self.base = assembly, train, features, base
        self.folder = output / "best"
        self._graph = _shipped_graph(assembly.recipe) or output / "encoder.onnx"

    def write(self, score: Score) -> None:
        """Export the captioner as it is now."""
        assembly = self.assembly
        if assembly.model.encoder is None and not self._graph.exists():
            write_encoder(assembly.encoder, self._graph)
        temporary, old = (self.folder.with_name(f".best.{name}") for name in ("new", "old"))
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)
        card = model_card(assembly.recipe, self.train, assembly.model, score)
        export_captioner(
            finished(assembly.model),
            assembly.encoder,
            assembly.tokens.tokenizer,
            replace(assembly.description, provenance=provenance(assembly, score)),
            temporary,
            features=self.features,
            papers=_papers(assembly.recipe, self.base, card),
            encoder_graph=self._graph if assembly.model.encoder is None else None,
        )
        if self.folder.exists():
            self.folder.rename(old)
        temporary.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)


def _shipped_graph(recipe: Recipe) -> Path | None:
    """The encoder's graph in the bundle that the encoder is from, if it is all of that one."""
    if recipe.encoder.family != "shipped" or recipe.encoder.output != "default":
        return None
    graph = open_bundle(recipe.encoder.name or DEFAULT).folder / "encoder.onnx"
    return graph if graph.exists() else None


def provenance(assembly: Assembly, score: Score | None) -> dict[str, str]:
    """Facts of a bundle about its making."""
    sources = ", ".join(Path(source.path).name for source in assembly.recipe.data.sources)
    facts = {**assembly.description.provenance, "recipe": assembly.recipe.name, "data": sources}
    if score is not None:
        facts["validation"] = f"CIDEr-D {score.cider:.4f} on {score.report.photos} photos"
    return facts


def _papers(recipe: Recipe, base: Path, card: str) -> Papers:
    """A bundle's texts: the recipe's own files, or the card and the licence in one line."""
    files = recipe.papers

    def read(name: str, otherwise: str) -> str:
        try:
            return (base / name).read_text(encoding="utf-8") if name else otherwise
        except OSError as error:
            raise ConfigError(f"{base / name}: cannot be read: {error.strerror}") from None

    return Papers(
        card=read(files.card, card),
        licence=read(files.licence, f"{recipe.licence}\n"),
        classes=read(files.classes, ""),
    )


def export_run(run: Path, bundle: Path, *, precision: Bits) -> Bundle:
    """Write the best captioner of a run as a bundle of another precision.

    Its graphs are compared with the modules on the run's own photos, where their features are
    there. Raises `CheckpointError` for a folder that is no run, or has no best captioner yet.
    """
    if bundle.exists():
        raise BundleError(f"{bundle}: exists, and bundles never change; choose a new folder")
    known = checkpoint.read_run(run)
    assembly = put_together(known.recipe, known.tokens, base=known.base)
    checkpoint.load_weights(assembly.model, run / "best.safetensors")
    card, licence, classes = (
        path.read_text("utf-8") if path.exists() else ""
        for path in (run / "best" / name for name in ("README.md", "LICENSE.md", "classes.txt"))
    )
    return export_captioner(
        finished(assembly.model),
        assembly.encoder,
        known.tokens.tokenizer,
        replace(
            assembly.description, provenance=_without_parity(read_bundle(run / "best").provenance)
        ),
        bundle,
        features=_features(assembly, run, known.base),
        papers=Papers(card=card, licence=licence, classes=classes),
        precision=precision,
    )


def _features(assembly: Assembly, run: Path, base: Path) -> Floats:
    encoder, named = assembly.encoder, assembly.recipe.features.store
    folder = base / named if named else run / "features"
    if (folder / "store.json").exists():
        store = FeatureStore(folder, read_description(folder))
        stored = store.features([photo for photo, _ in zip(store, range(COMPARED), strict=False)])
        with torch.no_grad():
            found: Floats = features_of(assembly.model, torch.from_numpy(stored)).numpy()
        return found
    drawn = torch.randn(
        COMPARED, encoder.rows, encoder.width, generator=torch.Generator().manual_seed(0)
    )
    features: Floats = drawn.numpy()
    return features


def _without_parity(facts: Mapping[str, str]) -> dict[str, str]:
    """What the export that is made now measures itself."""
    return {name: fact for name, fact in facts.items() if not name.startswith("export:")}
