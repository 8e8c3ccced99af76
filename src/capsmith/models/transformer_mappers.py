"""Mappers with attention: ClipCap's transformer and its relatives, and one for grids of patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capsmith.models.mappers import Mapper, MapperConfig


class Attention(nn.Module):
    """Attention as in ClipCap: no bias but in the output, keys before values in one product."""

    def __init__(self, width: int, heads: int, reference_width: int):
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(reference_width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """Attend from x (B, T, width) to reference (B, S, reference_width)."""
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_queries(x), *self.to_keys_values(reference).chunk(2, 2))
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.project(mixed.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """Two linear layers with ReLU between them."""

    def __init__(self, width: int, expansion: float):
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * expansion))
        self.fc2 = nn.Linear(int(width * expansion), width)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc2(F.relu(self.fc1(x)))
        return output


class Block(nn.Module):
    """ClipCap's pre-norm block, attending to its own input or to a reference."""

    def __init__(self, width: int, heads: int, expansion: float, reference_width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, reference_width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, expansion)

    def forward(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """x (B, T, width); a reference is read as it is, without a norm."""
        normal = self.norm1(x)
        x = x + self.attn(normal, normal if reference is None else reference)
        x = x + self.mlp(self.norm2(x))
        return x


class Transformer(nn.Module):
    """Blocks one after the other."""

    def __init__(self, width: int, layers: int, heads: int, expansion: float):
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads, expansion, width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class CrossTransformer(nn.Module):
    """`layers` pairs of blocks: the first of a pair reads a reference, the second reads x.

    Keys and values come from x as it is there, not from its norm, unlike in `Transformer`.
    """

    def __init__(self, width: int, layers: int, heads: int, expansion: float, reference_width: int):
        super().__init__()
        self.layers = nn.ModuleList(
            Block(width, heads, expansion, read)
            for _ in range(layers)
            for read in (reference_width, width)
        )

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x, reference if index % 2 == 0 else x)
        return x


def with_constants(x: Tensor, constants: Tensor) -> Tensor:
    """x (B, T, width) followed by constants (rows, width), the same for every photo."""
    return torch.cat([x, constants.expand(len(x), -1, -1)], 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig(MapperConfig):
    """tokens: how many vectors the features become before attention ("clip length")."""

    tokens: int
    layers: int = 8
    heads: int = 8
    expansion: float = 2.0


class TransformerMapper(Mapper):
    """ClipCap's transformer (Mokady et al. 2021), which CapDec and ViECap use too.

    The features become `tokens` vectors, learned constants follow, and what the transformer makes
    of the constants is the prefix. No positions, no mask, no norm at the end.
    """

    Config = TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.prefix_const = nn.Parameter(torch.randn(config.rows, config.width))
        self.transformer = Transformer(config.width, config.layers, config.heads, config.expansion)
        self.linear = nn.Linear(config.input_width, config.tokens * config.width)

    def map(self, features: Tensor) -> Tensor:
        tokens = self.linear(features[:, 0]).unflatten(1, (-1, self.config.width))
        mixed: Tensor = self.transformer(with_constants(tokens, self.prefix_const))
        return mixed[:, self.config.tokens :]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDecoderConfig(TransformerConfig):
    """reference_width: width of the encoder's vectors; the decoder has 2 * `layers` blocks."""

    reference_width: int = 512


class EncoderDecoderMapper(Mapper):
    """CapDec's second mapper (Nukrai et al. 2022): the constants attend to the encoded features.

    The decoder's blocks read the encoder's output and the constants themselves by turns.
    """

    Config = EncoderDecoderConfig

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__(config)
        reference, heads, expansion = config.reference_width, config.heads, config.expansion
        self.prefix_const = nn.Parameter(torch.randn(config.rows, config.width))
        self.ref_encoder = Transformer(reference, config.layers, heads, expansion)
        self.prefix_decoder = CrossTransformer(
            config.width, config.layers, heads, expansion, reference
        )
        self.linear = nn.Linear(config.input_width, config.tokens * reference)

    def map(self, features: Tensor) -> Tensor:
        tokens = self.linear(features[:, 0]).unflatten(1, (-1, self.config.reference_width))
        constants = self.prefix_const.expand(len(features), -1, -1)
        prefix: Tensor = self.prefix_decoder(constants, self.ref_encoder(tokens))
        return prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig(MapperConfig):
    """Defaults are those of the smaller CLIPxGPT."""

    layers: int = 6
    heads: int = 16
    expansion: float = 4.0
    dropout: float = 0.1


class EncoderMapper(Mapper):
    """CLIPxGPT's mapper: a post-norm transformer encoder, then one linear layer to all rows.

    Each photo is a sequence of its own. The published training code passed a batch as one
    sequence, in which photos attended to each other.
    """

    Config = EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        layer = nn.TransformerEncoderLayer(
            config.input_width,
            config.heads,
            int(config.input_width * config.expansion),
            config.dropout,
            batch_first=True,
        )
        self.transformer_encoder = nn.TransformerEncoder(
            layer, config.layers, enable_nested_tensor=False
        )
        self.mapper = nn.Linear(config.input_width, config.rows * config.width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def map(self, features: Tensor) -> Tensor:
        encoded = self.transformer_encoder(features[:, :1])
        rows: Tensor = self.mapper(encoded[:, 0]).unflatten(1, (-1, self.config.width))
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class GridConfig(MapperConfig):
    """input_rows: rows of the features, the cells of the grid and what else the encoder gives."""

    input_rows: int
    layers: int = 2
    heads: int = 8
    expansion: float = 4.0


class GridMapper(Mapper):
    """For encoders that give a grid of patches: every row becomes a vector with its place.

    As in ClipCap's transformer, learned constants follow and become the prefix, so that its length
    does not depend on the grid's; norms at both ends keep wide features and prefix in scale.
    """

    Config = GridConfig

    def __init__(self, config: GridConfig) -> None:
        super().__init__(config)
        self.norm = nn.LayerNorm(config.input_width)
        self.project = nn.Linear(config.input_width, config.width)
        self.places = nn.Parameter(torch.randn(config.input_rows, config.width) * 0.02)
        self.constants = nn.Parameter(torch.randn(config.rows, config.width) * 0.02)
        self.transformer = Transformer(config.width, config.layers, config.heads, config.expansion)
        self.output_norm = nn.LayerNorm(config.width)

    def map(self, features: Tensor) -> Tensor:
        cells = self.project(self.norm(features)) + self.places
        mixed = self.transformer(with_constants(cells, self.constants))
        prefix: Tensor = self.output_norm(mixed[:, self.config.input_rows :])
        return prefix
