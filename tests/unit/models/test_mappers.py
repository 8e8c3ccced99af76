"""Mappers: the published sizes, the ancestors' recorded numbers, and the graphs that we export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx_ir as ir  # noqa: E402

from capsmith.export.graphs import export_mapper  # noqa: E402
from capsmith.export.parity import compare_outputs  # noqa: E402
from capsmith.export.quantize import quantize  # noqa: E402
from capsmith.models.bert_mapper import BertConfig, BertMapper  # noqa: E402
from capsmith.models.mappers import (  # noqa: E402
    LinearMapper,
    Mapper,
    MapperConfig,
    MLPConfig,
    MLPMapper,
)
from capsmith.models.transformer_mappers import (  # noqa: E402
    EncoderConfig,
    EncoderDecoderConfig,
    EncoderDecoderMapper,
    EncoderMapper,
    GridConfig,
    GridMapper,
    TransformerConfig,
    TransformerMapper,
)
from capsmith.runtime.session import open_session  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden"


def sizes(input_width: int, rows: int, width: int = 768) -> dict[str, Any]:
    return {"input_width": input_width, "rows": rows, "width": width}


def count(mapper: type[Mapper], config: MapperConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in mapper(config).parameters())


@pytest.mark.parametrize(
    ("mapper", "config", "published"),
    [
        (MLPMapper, MLPConfig(**sizes(512, 10)), 31_468_800),
        (MLPMapper, MLPConfig(**sizes(640, 10)), 31_960_320),
        (MLPMapper, MLPConfig(**sizes(512, 40)), 479_769_600),
        (TransformerMapper, TransformerConfig(tokens=10, **sizes(512, 10)), 41_745_408),
        (TransformerMapper, TransformerConfig(tokens=10, **sizes(640, 10)), 42_728_448),
        (TransformerMapper, TransformerConfig(tokens=40, **sizes(640, 40)), 57_520_128),
        (EncoderMapper, EncoderConfig(**sizes(768, 4)), 44_889_600),
        (EncoderMapper, EncoderConfig(layers=5, **sizes(1024, 4, 1024)), 67_179_520),
    ],
)
def test_published_settings_have_the_published_parameters(
    mapper: type[Mapper], config: MapperConfig, published: int
) -> None:
    assert count(mapper, config) == published


def test_bert_mapper_has_the_published_parameters_but_for_those_that_it_never_reads() -> None:
    word_table, pooler = 21_128 * 768, 768 * 768 + 768
    config = BertConfig(tokens=10, **sizes(512, 10))
    assert count(BertMapper, config) == 77_863_680 - word_table - pooler


def recorded_mapper(family: str, sizes: dict[str, Any]) -> Mapper:
    """The mapper of a recording, from its recorded sizes."""
    shared = {"width": sizes["n_embd"]}
    width_in = sizes.get("prefix_size") or sizes.get("clip_size") or sizes["n_embd"]
    rows = sizes.get("prefix_length") or sizes.get("prefix_len") or sizes["ep_len"]
    shared |= {"input_width": width_in, "rows": rows}
    if family == "clipxgpt":
        layers, heads = sizes["mapper_layers"], sizes["mapper_heads"]
        expansion = sizes["forward_expansion"]
        return EncoderMapper(
            EncoderConfig(layers=layers, heads=heads, expansion=expansion, **shared)
        )
    if family == "clipcap-chinese-bert":
        bert = sizes["bert"]
        config = BertConfig(
            tokens=rows,
            layers=bert["layers"],
            heads=bert["heads"],
            feed_width=bert["intermediate"],
            positions=bert["max_positions"],
            **shared | {"rows": sizes["constant_len"]},
        )
        return BertMapper(config)
    if family == "capdec-encdec":
        return EncoderDecoderMapper(
            EncoderDecoderConfig(
                tokens=sizes["clip_length"],
                layers=sizes["mapper_layers"],
                reference_width=sizes["reference_width"],
                **shared,
            )
        )
    if family.endswith("linear"):
        return LinearMapper(MapperConfig(**shared))
    if sizes.get("clip_length"):
        tokens, layers = sizes["clip_length"], sizes["mapper_layers"]
        return TransformerMapper(TransformerConfig(tokens=tokens, layers=layers, **shared))
    return MLPMapper(MLPConfig(**shared))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no recordings at {GOLDEN}")
@pytest.mark.parametrize(
    "family",
    [
        "clipcap-mlp",
        "clipcap-transformer",
        "clipcap-predictor-mlp",
        "clipcap-predictor-linear",
        "clipcap-chinese-mlp",
        "clipcap-chinese-bert",
        "clipxgpt",
        "capdec",
        "capdec-encdec",
    ],
)
def test_checkpoints_of_the_ancestors_load_and_give_the_recorded_prefixes(family: str) -> None:
    folder = GOLDEN / family
    index = json.loads((GOLDEN / "index.json").read_text())
    mapper = recorded_mapper(family, index["families"][family]["sizes"]).eval()
    weights = {
        name.split(".", 1)[1]: tensor
        for name, tensor in torch.load(folder / "checkpoint.pt", weights_only=True).items()
        if name.startswith(("clip_project.", "mp."))
        and not any(unread in name for unread in ("word_emb", "position_ids", "bert.pooler"))
    }
    if family.endswith("linear"):
        weights = {f"project.{name}": tensor for name, tensor in weights.items()}
    mapper.load_state_dict(weights)
    features = torch.from_numpy(np.load(folder / "image_embeddings.npy"))[:, None]
    with torch.inference_mode():
        prefix = mapper(features)
    # For CLIPxGPT this is what it gives photo by photo: a batch does not leak.
    recorded = np.load(folder / "prefix_embeddings.npy")
    np.testing.assert_allclose(prefix.numpy(), recorded, atol=2e-5)


SIZES = {"input_width": 24, "rows": 5, "width": 64}
TOYS = [
    LinearMapper(MapperConfig(**SIZES)),
    MLPMapper(MLPConfig(**SIZES)),
    MLPMapper(MLPConfig(hidden=48, normalise=True, **SIZES)),
    TransformerMapper(TransformerConfig(tokens=3, layers=2, **SIZES)),
    EncoderDecoderMapper(
        EncoderDecoderConfig(tokens=3, layers=2, heads=4, reference_width=32, **SIZES)
    ),
    EncoderMapper(EncoderConfig(layers=2, heads=4, **SIZES)),
    BertMapper(BertConfig(tokens=3, layers=2, feed_width=96, positions=16, **SIZES)),
    GridMapper(GridConfig(input_rows=7, **SIZES)),
]


def toy_features(mapper: Mapper, photos: int = 4) -> torch.Tensor:
    rows = mapper.config.input_rows if isinstance(mapper, GridMapper) else 1
    return torch.randn(photos, rows, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mapper", TOYS, ids=lambda mapper: type(mapper).__name__)
class TestEveryMapper:
    def test_a_photo_has_the_same_prefix_alone_and_in_a_batch(self, mapper: Mapper) -> None:
        features = toy_features(mapper)
        with torch.inference_mode():
            together = mapper.eval()(features)
            alone = torch.cat([mapper(row[None]) for row in features])
        assert together.shape == (4, 5, 64)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        assert together.std(0).min() > 0, "every number depends on the photo"

    def test_exports_in_every_precision(self, mapper: Mapper, tmp_path: Path) -> None:
        features = toy_features(mapper)
        export_mapper(mapper, tmp_path / "float32.onnx", rows=features.shape[1], width=24)
        compare_outputs(mapper, tmp_path / "float32.onnx", features, tolerance=1e-4)
        for precision, tolerance in (("float16", 0.02), ("int8", 0.1), ("int4", 1.5)):
            path = tmp_path / f"{precision}.onnx"
            ir.save(quantize(ir.load(tmp_path / "float32.onnx"), precision), path)
            compare_outputs(mapper, path, features, tolerance=tolerance)


def test_normalisation_is_part_of_the_graph(tmp_path: Path) -> None:
    mapper = MLPMapper(MLPConfig(normalise=True, **SIZES))
    export_mapper(mapper, tmp_path / "mapper.onnx", rows=1, width=24)
    features = toy_features(mapper)

    session = open_session(tmp_path / "mapper.onnx", threads=1)
    [prefix] = session.run(None, {"features": 10 * features.numpy()})
    np.testing.assert_allclose(prefix, mapper(features).detach().numpy(), atol=1e-4)
    plain = MLPMapper(MLPConfig(**SIZES))
    plain.load_state_dict(mapper.state_dict())
    assert not torch.allclose(plain(features), mapper(features), atol=0.01)


def test_a_grid_mapper_reads_every_row_and_its_place() -> None:
    mapper = TOYS[-1].eval()
    features = toy_features(mapper, photos=1).requires_grad_()
    prefix = mapper(features)
    prefix[0, 0, 0].backward()  # not the sum of a row: behind a norm it is always the same
    assert features.grad is not None
    assert (features.grad.abs().sum(2) > 0).all()
    swapped = mapper(features.detach().flip(1))
    assert not torch.allclose(prefix, swapped, atol=1e-3)
