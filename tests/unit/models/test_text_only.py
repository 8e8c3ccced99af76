"""Noise on text embeddings, against recordings of CapDec's own function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from capsmith.errors import DataError  # noqa: E402
from capsmith.models.text_only import (  # noqa: E402
    estimate_variance,
    modality_offset,
    with_noise,
)

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden/capdec"


def recorded(name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(GOLDEN / f"{name}.npy"))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no recordings at {GOLDEN}")
@pytest.mark.parametrize(
    ("recording", "options"),
    [
        ("noise_0", {"variance": 0.016}),
        ("noise_1", {"variance": 0.016, "noise": "ball"}),
        ("noise_2", {"variance": 0.1, "offset": "noise_offset"}),
        ("noise_3", {"variance": 0.016, "is_normalised_first": False}),
        ("noise_4", {"variance": 0.0}),
    ],
)
def test_noise_is_that_of_capdec(recording: str, options: dict[str, Any]) -> None:
    if "offset" in options:
        options = options | {"offset": recorded(options["offset"])}
    embeddings = recorded("noise_input")
    before = embeddings.clone()
    torch.manual_seed(77)
    torch.testing.assert_close(with_noise(embeddings, **options), recorded(recording))
    torch.testing.assert_close(embeddings, before)


def test_a_generator_makes_the_draw_repeatable() -> None:
    embeddings = torch.randn(4, 6)
    draws = [
        with_noise(embeddings, variance=0.1, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert draws[0].equal(draws[1])
    assert not draws[0].equal(draws[2])
    torch.testing.assert_close(draws[0].norm(dim=1), torch.ones(4))


def test_the_variance_is_the_mean_largest_difference_between_captions_of_a_photo() -> None:
    photo = torch.tensor([[3.0, 0.0, 4.0], [0.0, 3.0, 4.0], [0.6, 0.0, 0.8]])
    alone = torch.tensor([[1.0, 0.0, 0.0]])
    # Unit vectors differ by 0.6, 0 and 0.6 in their furthest coordinate.
    assert estimate_variance([photo, alone]) == pytest.approx(0.4)
    with pytest.raises(DataError, match="no photo has two captions"):
        estimate_variance([alone, alone])


def test_the_offset_leads_from_texts_to_photos() -> None:
    texts, images = torch.eye(3)[:2] * 5, torch.eye(3)[1:] * 2
    torch.testing.assert_close(modality_offset(images, texts), torch.tensor([-0.5, 0.0, 0.5]))
