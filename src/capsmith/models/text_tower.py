"""A small text tower: texts as vectors in the space of an image encoder's embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from capsmith.errors import ConfigError

PAD, END = "<pad>", "<end>"
PAD_ID, END_ID = 0, 1
_FIRST_SCALE, _LARGEST_SCALE = 20.0, 500.0
_NOTHING = -1e4  # a logit of what is to have no share


def train_text_tokenizer(
    texts: Iterable[str], *, vocab_size: int, max_tokens: int
) -> tokenizers.Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016) of at most `vocab_size` tokens, for any language.

    Every text can be spelled and ends with `END`, the empty one too; what is longer than
    `max_tokens`, the end counted, is cut there. Case and width of letters are folded (NFKC), and a
    word is the same tokens at the beginning of a text as inside. A Han character is a token of its
    own: Chinese has no spaces that would keep merges inside of words, and whole clauses would be
    tokens that no other clause shares.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTowerConfig:
    """Sizes of a `TextTower`.

    width: of the vectors inside, a multiple of `heads`. heads: of the pooling. inner: how many
    times wider the hidden layer after it is.
    """

    width: int = 192
    heads: int = 6
    inner: int = 4
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.inner) < 1 or self.width % self.heads:
            raise ConfigError(
                f"the tower's width {self.width} must be a multiple of its {self.heads} heads, and"
                f" inner {self.inner} above 0"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"the tower's dropout is {self.dropout}; use from 0 to below 1")


class TextTower(nn.Module):
    """Token vectors that see their neighbours, attentive pooling, a hidden layer, a projection.

    Training sets are small and captions short: which words there are says nearly all, and almost
    everything here costs once a text instead of once a token. `log_scale` is the logarithm of the
    learned inverse temperature (Radford et al. 2021): cosines times it are logits.
    """

    def __init__(self, config: TextTowerConfig, *, vocab_size: int, output_width: int):
        super().__init__()
        width = config.width
        self.config = config
        self.tokens = nn.Embedding(vocab_size, width)
        nn.init.normal_(self.tokens.weight, std=0.1)
        self.token_norm = nn.LayerNorm(width)
        # Weights of the token before, the token itself and the one after, channel by channel.
        self.neighbours = nn.Parameter(torch.randn(3, width) * 0.3)
        self.attention = nn.Linear(width, config.heads)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.inner * width)
        self.down = nn.Linear(config.inner * width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(width, output_width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(_FIRST_SCALE).log())

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors float32 (n, output_width), not normalised, of tokens int64 (n, length).

        `PAD_ID` behind a text changes nothing.
        """
        is_text = tokens.ne(PAD_ID).unsqueeze(-1)
        words = self.token_norm(self.tokens(tokens)) * is_text
        padded = F.pad(words, (0, 0, 1, 1))
        before, after = padded[:, :-2], padded[:, 2:]
        weights = self.neighbours
        words = words + F.gelu(before * weights[0] + words * weights[1] + after * weights[2])
        share = self.attention(words).masked_fill(~is_text, _NOTHING).softmax(1)
        heads = words.unflatten(-1, (self.config.heads, -1))
        pooled = (heads * share.unsqueeze(-1)).sum(1).flatten(1)
        added = self.down(self.dropout(F.gelu(self.up(self.norm(pooled)))))
        vectors: Tensor = self.projection(self.dropout(pooled + added))
        return vectors

    @property
    def scale(self) -> Tensor:
        """The inverse temperature, kept from growing without end."""
        return self.log_scale.exp().clamp(max=_LARGEST_SCALE)
