"""The best captioner so far, as a bundle that can be used while training goes on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from capsmith.data.manifest import Manifest
from capsmith.export.captioner import Papers, export_captioner, write_encoder
from capsmith.models.policies import finished
from capsmith.runtime.engine import Floats
from capsmith.training.assembly import Assembly
from capsmith.training.report import model_card
from capsmith.training.validation import Score


class BestBundle:
    """`OUTPUT/best`, replaced whenever a better captioner is found.

    An encoder that does not train is exported once, to OUTPUT/encoder.onnx.
    """

    def __init__(self, assembly: Assembly, train: Manifest, output: Path, features: Floats):
        self.assembly, self.train, self.features = assembly, train, features
        self.folder = output / "best"
        self._graph = output / "encoder.onnx"

    def write(self, score: Score) -> None:
        """Export the captioner as it is now."""
        assembly = self.assembly
        if assembly.model.encoder is None and not self._graph.exists():
            write_encoder(assembly.encoder, self._graph)
        temporary, old = (self.folder.with_name(f".best.{name}") for name in ("new", "old"))
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)
        papers = Papers(
            card=model_card(assembly.recipe, self.train, assembly.model, score),
            licence=f"{assembly.recipe.licence}\n",
        )
        export_captioner(
            finished(assembly.model),
            assembly.encoder,
            assembly.tokens.tokenizer,
            replace(assembly.description, provenance=provenance(assembly, score)),
            temporary,
            features=self.features,
            papers=papers,
            encoder_graph=self._graph if assembly.model.encoder is None else None,
        )
        if self.folder.exists():
            self.folder.rename(old)
        temporary.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)


def provenance(assembly: Assembly, score: Score | None) -> dict[str, str]:
    """Facts of a bundle about its making."""
    sources = ", ".join(Path(source.path).name for source in assembly.recipe.data.sources)
    facts = {"recipe": assembly.recipe.name, "data": sources}
    if score is not None:
        facts["validation"] = f"CIDEr-D {score.cider:.4f} on {score.report.photos} photos"
    return facts
