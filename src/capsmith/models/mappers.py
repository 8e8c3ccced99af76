"""Mappers: from an encoder's features to the prefix of a language model.

Parameters of the ancestors' mappers are named as in their checkpoints, so that those load
unchanged. Mappers with attention are in `transformer_mappers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class MapperConfig:
    """Sizes that every mapper has.

    normalise: divide each row of the features by its L2 norm first. It is part of the mapper, and
    so of its graph: training and captioning cannot disagree about it.
    """

    input_width: int
    rows: int
    width: int
    normalise: bool = False


class Mapper(nn.Module, ABC):
    """Features float32 (B, k, input_width) to a prefix float32 (B, rows, width).

    Mappers of one vector read the first row of the features, which in encoders that give more is
    the pooled one.
    """

    Config: ClassVar[type[MapperConfig]] = MapperConfig
    training_only: ClassVar[tuple[str, ...]] = ()
    """Parameters that captioning does not use."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config: Any = config

    def forward(self, features: Tensor) -> Tensor:
        """Normalise where the config says so, then map."""
        if self.config.normalise:
            features = F.normalize(features, dim=2)
        return self.map(features)

    @abstractmethod
    def map(self, features: Tensor) -> Tensor:
        """The prefix (B, rows, width) of features that are normalised already."""


class LinearMapper(Mapper):
    """One linear layer, as ClipCap's published predictor has for prefixes over 10 rows."""

    def __init__(self, config: MapperConfig) -> None:
        super().__init__(config)
        self.project = nn.Linear(config.input_width, config.rows * config.width)

    def map(self, features: Tensor) -> Tensor:
        rows: Tensor = self.project(features[:, 0]).unflatten(1, (-1, self.config.width))
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPConfig(MapperConfig):
    """hidden: width of the middle layer; None is half of the outputs, as in ClipCap."""

    hidden: int | None = None


class MLPMapper(Mapper):
    """Two linear layers with tanh between them (ClipCap, Mokady et al. 2021)."""

    Config = MLPConfig

    def __init__(self, config: MLPConfig) -> None:
        super().__init__(config)
        outputs = config.rows * config.width
        hidden = config.hidden or outputs // 2
        self.model = nn.Sequential(
            nn.Linear(config.input_width, hidden), nn.Tanh(), nn.Linear(hidden, outputs)
        )

    def map(self, features: Tensor) -> Tensor:
        rows: Tensor = self.model(features[:, 0]).unflatten(1, (-1, self.config.width))
        return rows
