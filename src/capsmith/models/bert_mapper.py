"""The mapper of ClipCap-Chinese: a BERT (Devlin et al. 2019) over features and constants.

Parameters are named as in its checkpoints, without BERT's word table and pooler, which the mapper
never reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capsmith.models.mappers import Mapper, MapperConfig
from capsmith.models.transformer_mappers import with_constants

_NORM_EPSILON = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class BertConfig(MapperConfig):
    """Defaults are the published sizes. tokens: how many vectors the features become."""

    tokens: int
    layers: int = 8
    heads: int = 8
    feed_width: int = 3072
    positions: int = 512
    dropout: float = 0.1


class _Embeddings(nn.Module):
    """Adds a vector of the place and that of segment 0, the only segment there is."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(config.positions, config.width)
        self.token_type_embeddings = nn.Embedding(2, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, _NORM_EPSILON)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        places = self.position_embeddings.weight[: x.shape[1]]
        normal = self.LayerNorm(x + places + self.token_type_embeddings.weight[0])
        output: Tensor = self.dropout(normal)
        return output


class _Output(nn.Module):
    """Linear layer and dropout, added to the layer's input, then the norm: BERT is post-norm."""

    def __init__(self, inputs: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, _NORM_EPSILON)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        normal: Tensor = self.LayerNorm(skip + self.dropout(self.dense(x)))
        return normal


class _SelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)


class _Layer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": _SelfAttention(config), "output": _Output(config.width, config)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.width, config.feed_width)})
        self.output = _Output(config.feed_width, config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x), x)
        output: Tensor = self.output(F.gelu(self.intermediate["dense"](x)), x)
        return output


class BertMapper(Mapper):
    """ClipCap-Chinese's second mapper: BERT's output at the constants is the prefix.

    As in ClipCap's transformer mapper the features become `tokens` vectors and learned constants
    follow. The published code works for `rows` equal to `tokens` alone; here they are free.
    """

    Config = BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.prefix_const = nn.Parameter(torch.randn(config.rows, config.width))
        self.linear = nn.Linear(config.input_width, config.tokens * config.width)
        layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.bert = nn.ModuleDict(
            {"embeddings": _Embeddings(config), "encoder": nn.ModuleDict({"layer": layers})}
        )
        for module in self.bert.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def map(self, features: Tensor) -> Tensor:
        tokens = self.linear(features[:, 0]).unflatten(1, (-1, self.config.width))
        x: Tensor = self.bert["embeddings"](with_constants(tokens, self.prefix_const))
        for layer in self.bert["encoder"]["layer"]:  # type: ignore[index]
            x = layer(x)
        return x[:, self.config.tokens :]
