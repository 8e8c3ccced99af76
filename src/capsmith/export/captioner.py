"""A trained captioner as a bundle: three graphs, checked against their modules, and the facts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import tokenizers
import torch
from torch import nn

from capsmith import bundle as bundles
from capsmith.bundle import Bundle, Decoding, Description, Preprocessing, TextRules
from capsmith.errors import ConfigError
from capsmith.export.graphs import export_decoder, export_encoder, export_mapper
from capsmith.export.parity import compare_decoder, compare_outputs
from capsmith.export.quantize import Precision
from capsmith.models.architectures import architecture_of
from capsmith.models.caption_model import CaptionModel
from capsmith.models.language_models import CrossAttentionDecoder
from capsmith.models.prefixed import PrefixedModel
from capsmith.models.recurrent import RecurrentModel
from capsmith.runtime.engine import Floats
from capsmith.runtime.rules import Rules

Bits = Literal["float32", "float16", "int8", "int4"]
"""Precision of a decoder graph."""

_DEFAULT_MAX_TOKENS = 40
_TOLERANCE: Mapping[Bits, float] = {"float32": 1e-3, "float16": 0.2, "int8": 0.5, "int4": 2.0}
"""Of logits, in their standard deviations; graphs beyond it are refused."""
_SAMPLES = 8


class Encoder(Protocol):
    """What is asked of an image encoder, beside being an `nn.Module`."""

    name: str
    rows: int
    width: int
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """Texts in a bundle: model card and licence, Markdown; names of the encoder's classes."""

    card: str
    licence: str
    classes: str = ""


def describe(
    model: CaptionModel,
    *,
    name: str,
    version: str,
    licence: str,
    languages: Sequence[str],
    encoder: Any,
    never_tokens: Sequence[int],
    text: TextRules,
    decoding: Decoding,
    language_text: Mapping[str, TextRules] | None = None,
) -> Description:
    """`captioner.json` of a captioner, but for its files; `encoder` is an `Encoder`."""
    reader = model.reader
    kind = "prefix"
    if isinstance(model.language_model, CrossAttentionDecoder):
        kind = "cross-attention"
    elif isinstance(model.language_model, RecurrentModel):
        kind = "recurrent"
    rows = _prefix_rows(model, encoder)
    return Description(
        format=bundles.FORMAT,
        name=name,
        version=version,
        languages=tuple(languages),
        licence=licence,
        provenance={"architecture": json.dumps(architecture_of(model.mapper, reader))},
        encoder=bundles.Encoder(
            name=encoder.name, rows=encoder.rows, width=encoder.width, embedding="first"
        ),
        preprocessing=encoder.preprocessing,
        prefix=bundles.Prefix(rows=rows, width=reader.width),
        language_model=bundles.LanguageModel(
            kind=kind,  # type: ignore[arg-type]
            vocab_size=reader.vocab_size,
            max_tokens=_max_tokens(model, rows, decoding),
            start_tokens=model.start_tokens,
            stop_tokens=(model.end_token,),
            never_tokens=tuple(never_tokens),
            precision="float32",
        ),
        text=text,
        language_tokens={name: (token,) for name, token in model.language_tokens.items()},
        detail_tokens={name: (token,) for name, token in model.detail_tokens.items()},  # type: ignore[misc]
        decoding=decoding,
        quirks=bundles.Quirks(),
        files={},
        language_text=dict(language_text or {}),
    )


def export_captioner(
    model: CaptionModel,
    encoder: nn.Module,
    tokenizer: tokenizers.Tokenizer,
    description: Description,
    folder: Path,
    *,
    features: Floats,
    papers: Papers,
    precision: Bits = "float32",
    encoder_graph: Path | None = None,
) -> Bundle:
    """Write the bundle, atomically; logits, captions and features are compared with the modules'.

    features: float32 (n, k, d) of a few photos, to compare on. encoder_graph: the encoder's graph,
    where it was exported before. The differences are written into the bundle's provenance. Raises
    `BundleError` where a graph differs by more than its precision explains.
    """
    model.eval()
    with tempfile.TemporaryDirectory() as temporary:
        graphs = Path(temporary)
        mapper, decoder = graphs / "mapper.onnx", graphs / "decoder.onnx"
        sample = torch.from_numpy(features[:_SAMPLES])
        stored: Precision = "float32" if precision == "float32" else "int8-stored"
        export_mapper(
            model.mapper, mapper, rows=features.shape[1], width=features.shape[2], precision=stored
        )
        export_decoder(model.language_model, decoder, precision=precision)
        off = compare_outputs(model.mapper, mapper, sample, tolerance=_TOLERANCE[precision])
        with torch.no_grad():
            prefix = model.mapper(sample).numpy()
        parity = compare_decoder(
            model.reader, decoder, prefix, _rules(model, description),
            tolerance=_TOLERANCE[precision],
        )  # fmt: skip
        found = {
            "export: largest difference of the prefix": f"{off:.2g} standard deviations",
            "export: largest difference of a logit": f"{parity.logits:.2g} standard deviations",
            "export: same greedy captions": f"{parity.captions:.0%} of {len(sample)}",
        }
        if encoder_graph is None:
            encoder_graph = graphs / "encoder.onnx"
            is_wide = precision == "float32"
            write_encoder(encoder, encoder_graph, precision="float32" if is_wide else "float16")
        language_model = replace(description.language_model, precision=precision)
        facts = replace(
            description,
            language_model=language_model,
            provenance={**description.provenance, **found},
        )
        files: dict[str, Path | bytes] = {
            path.name: path for path in (mapper, decoder, *graphs.glob("*.data"))
        }
        beside = encoder_graph.with_name(encoder_graph.name + ".data")
        if beside.exists():
            files[beside.name] = beside
        files |= {
            "encoder.onnx": encoder_graph,
            "tokenizer.json": tokenizer.to_str().encode(),
            "README.md": papers.card.encode(),
            "LICENSE.md": papers.licence.encode(),
        }
        if papers.classes:
            files["classes.txt"] = papers.classes.encode()
        return bundles.write_bundle(folder, facts, files)


def write_encoder(encoder: Any, path: Path, *, precision: Bits = "float32") -> None:
    """Write an encoder's graph, compared with its module; in 16 bits where that loses nothing."""
    encoder = encoder.eval()
    if all(torch.equal(p, p.half().float()) for p in encoder.parameters()):
        precision = "float16"
    seen = encoder.preprocessing
    export_encoder(encoder, path, height=seen.height, width=seen.width, precision=precision)
    pixels = torch.randn(2, 3, seen.height, seen.width, generator=torch.Generator().manual_seed(0))
    compare_outputs(encoder, path, pixels, tolerance=_TOLERANCE[precision])


def _rules(model: CaptionModel, description: Description) -> Rules:
    languages = description.languages
    return Rules(
        prompt=model.prompt(languages[0]),
        stop=frozenset({model.end_token}),
        never=frozenset(description.language_model.never_tokens),
        max_tokens=min(20, description.language_model.max_tokens),
    )


def _prefix_rows(model: CaptionModel, encoder: Any) -> int:
    was_training = model.mapper.training
    with torch.no_grad():
        device = next(model.mapper.parameters()).device
        prefix = model.mapper.eval()(torch.zeros(1, encoder.rows, encoder.width, device=device))
    model.mapper.train(was_training)
    return int(prefix.shape[1])


def _max_tokens(model: CaptionModel, rows: int, decoding: Decoding) -> int:
    """The longest caption: what is asked for, or what fits in the language model."""
    asked = decoding.limits.max_tokens or _DEFAULT_MAX_TOKENS
    room = caption_room(model, rows)
    if room is None:
        return asked
    if room < 2:
        raise ConfigError(
            f"a prefix of {rows} rows leaves no room for a caption in the language model's"
            " positions; shorten it"
        )
    if decoding.limits.max_tokens and asked > room:
        raise ConfigError(
            f"captions of {asked} tokens do not fit: the language model has room for {room} after"
            f" a prefix of {rows}; lower decoding.limits.max_tokens"
        )
    return min(asked, room)


def caption_room(model: CaptionModel, rows: int) -> int | None:
    """Tokens that the language model can read after `rows` of prefix and the start tokens.

    The end token is one of them. None: any number.
    """
    reader = model.language_model
    if isinstance(reader, CrossAttentionDecoder):
        return reader.positions.num_embeddings - model.prompt_length
    if isinstance(reader, PrefixedModel) and reader.positions is not None:
        return reader.positions - rows - model.prompt_length
    return None
