"""Every mapper and language model is built by the name that recipes use."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from capsmith.errors import ConfigError  # noqa: E402
from capsmith.models.architectures import (  # noqa: E402
    LANGUAGE_MODELS,
    MAPPERS,
    architecture_of,
    build_language_model,
    build_mapper,
)

MORE = {
    "transformer": {"tokens": 2},
    "encoder-decoder": {"tokens": 2},
    "bert": {"tokens": 2},
    "grid": {"input_rows": 3},
    "encoder": {"heads": 4},
    # One row of the prefix is the hint, the others are the features'.
    "hinted-grid": {"classes": 6, "words": 5, "hints": 1, "heads": 4},
}


@pytest.mark.parametrize("kind", MAPPERS)
def test_mappers(kind: str) -> None:
    sizes = {"input_width": 16, "rows": 4, "width": 32} | MORE.get(kind, {})
    if kind in ("transformer", "encoder-decoder", "encoder", "bert", "grid"):
        sizes["layers"] = 1
    mapper = build_mapper(kind, sizes)
    assert type(mapper) is MAPPERS[kind]
    assert mapper(torch.zeros(2, 3, 16)).shape == (2, 4, 32)


def test_an_architecture_says_how_it_is_built_again() -> None:
    mapper = build_mapper("mlp", {"input_width": 16, "rows": 4, "width": 32, "normalise": True})
    model = build_language_model("recurrent", {"vocab_size": 30, "width": 32, "cell": "gru"})
    parts = architecture_of(mapper, model)
    again = build_mapper(parts["mapper"].pop("kind"), parts["mapper"])
    assert again.config == mapper.config
    same = build_language_model(parts["language_model"].pop("kind"), parts["language_model"])
    assert same.config == model.config


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_language_models(kind: str) -> None:
    sizes: dict[str, object] = {"vocab_size": 30, "width": 32, "layers": 1}
    if kind != "recurrent":
        sizes |= {"heads": 4, "positions": 20}
    if kind == "llama":
        sizes |= {"key_value_heads": 2, "feed_width": 40}
    model = build_language_model(kind, sizes)
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    hidden = model.hidden(tokens, torch.zeros(2, 4, 32), torch.arange(2))
    assert model.head(hidden).shape[::2] == (2, 30)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match='"mpl" is no mapper; use one of linear, mlp'):
        build_mapper("mpl", {})
    with pytest.raises(ConfigError, match="mapper mlp lacks the field input_width"):
        build_mapper("mlp", {"rows": 4, "width": 8})
    with pytest.raises(ConfigError, match="language model gpt2 has an unknown field 'depth'"):
        build_language_model("gpt2", {"depth": 3})
    with pytest.raises(ConfigError, match="gpt2: 4 heads do not divide its width, 97"):
        build_language_model("gpt2", {"width": 97, "heads": 4})
    with pytest.raises(ConfigError, match="encoder: 3 heads do not divide its input_width, 16"):
        build_mapper("encoder", {"input_width": 16, "rows": 4, "width": 9, "heads": 3})
    with pytest.raises(ConfigError, match="llama: 3 key_value_heads do not divide its 4 heads"):
        build_language_model("llama", {"width": 64, "heads": 4, "key_value_heads": 3})
    with pytest.raises(ConfigError, match="recurrent has 'rnn' as cell, which must be one of"):
        build_language_model("recurrent", {"vocab_size": 5, "cell": "rnn"})
