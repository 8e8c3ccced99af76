"""Captions of a length that was asked for, and text rules of each language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import capsmith
from capsmith import BundleError, ConfigError, Greedy, Limits
from capsmith.description import DETAILS
from capsmith.runtime.constraints import resolve_limits
from capsmith.runtime.tokenizer import Tokenizer
from tests.bundles import VOCABULARY, toy_bundle

TOKENS = {"short": [5], "normal": [6], "long": [7]}
PHOTO = Image.linear_gradient("L").convert("RGB")


def test_details_are_tokens_after_the_languages(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "detailed", changes={"detail_tokens": TOKENS})
    captioner = capsmith.load(bundle.folder)
    logprobs = {
        detail: captioner.caption(PHOTO, Greedy(), limits=Limits(detail=detail)).logprob
        for detail in DETAILS
    }
    assert len(set(logprobs.values())) == 3
    assert captioner.caption(PHOTO, Greedy()).logprob == logprobs["normal"]
    tokenizer = Tokenizer(bundle.folder / "tokenizer.json", bundle.text)
    for detail in DETAILS:
        limits = Limits(detail=detail, prompt=VOCABULARY[8])
        rules, _ = resolve_limits(limits, "de", bundle=bundle, tokenizer=tokenizer)
        assert rules.prompt == (1, VOCABULARY.index("water"), *TOKENS[detail], 8)
    wrong: Any = "huge"
    with pytest.raises(ConfigError, match="detail is 'huge'; choose one of short, normal, long"):
        captioner.caption(PHOTO, limits=Limits(detail=wrong))
    with pytest.raises(ConfigError, match="limits is 'huge'; give"):
        captioner.caption(PHOTO, limits=wrong)


def test_a_captioner_without_details_cannot_be_asked(tmp_path: Path) -> None:
    plain = capsmith.load(toy_bundle(tmp_path / "plain").folder)
    with pytest.raises(ConfigError, match="toy cannot be asked for long captions"):
        plain.caption(PHOTO, limits=Limits(detail="long"))
    with pytest.raises(BundleError, match="detail_tokens that are not those of short, normal"):
        toy_bundle(tmp_path / "half", changes={"detail_tokens": {"short": [5], "long": [6]}})


def test_a_languages_captions_follow_its_own_rules(tmp_path: Path) -> None:
    rules = {
        "lowercase_prompt": True, "capitalise": False, "final_period": True, "join": " ",
        "period": "。",
    }  # fmt: skip
    bundle = toy_bundle(tmp_path / "ruled", changes={"language_text": {"de": rules}})
    captioner = capsmith.load(bundle.folder)
    english, german = (captioner.caption(PHOTO, language=name).text for name in ("en", "de"))
    assert english[:1].isupper()
    assert english.endswith(".")
    assert german[:1].islower()
    assert german.endswith("。")
    assert captioner.score(PHOTO, german, language="de") < 0
    with pytest.raises(BundleError, match="rules for a language that is not listed"):
        toy_bundle(tmp_path / "unknown", changes={"language_text": {"fr": rules}})
