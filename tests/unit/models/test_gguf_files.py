"""What of GGUF files is read, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capsmith.errors import CheckpointError, ConfigError
from capsmith.models.gguf_files import GGUFFile, gguf_sizes, load_gguf
from capsmith.models.gguf_tokenizers import load_gguf_tokenizer
from capsmith.models.pretrained_language_models import random_language_model
from tests.gguf_models import MERGES, OWN, SPECIAL, arrays, facts, gguf, tokens, write_gguf


def refusal(path: Path, load: Any = load_gguf) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_sizes_are_those_that_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "lm.gguf"
    write_gguf(path)
    sizes = gguf_sizes(GGUFFile(path))
    assert (sizes.vocab_size, sizes.positions, sizes.width, sizes.layers) == (
        len(tokens()),
        40,
        32,
        2,
    )
    assert (sizes.heads, sizes.key_value_heads, sizes.head_width, sizes.feed_width) == (4, 2, 8, 64)
    assert (sizes.rotary_base, sizes.is_tied) == (500.0, True)
    assert sizes.norm_epsilon == pytest.approx(1e-3)
    random = random_language_model(str(path), dropout=0.2)
    assert random.config.dropout == 0.2
    assert random.state_dict().keys() == load_gguf(path).state_dict().keys()


def test_facts_that_llama_cpp_may_leave_out_have_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "lm.gguf"
    left_out = {"llama.rope.freq_base": None, "llama.rope.dimension_count": None}
    write_gguf(path, known=facts(**left_out))
    sizes = gguf_sizes(GGUFFile(path))
    assert (sizes.rotary_base, sizes.head_width) == (10000.0, 8)


def test_weights_are_those_of_the_file_but_for_the_order_that_turns(tmp_path: Path) -> None:
    path = tmp_path / "lm.gguf"
    own = arrays()
    write_gguf(path, weights=own)
    state = load_gguf(path).state_dict()
    kinds = gguf.GGMLQuantizationType

    def stored(name: str, kind: Any) -> torch.Tensor:
        blocks = gguf.quants.quantize(own[name], kind)
        return torch.from_numpy(np.array(gguf.quants.dequantize(blocks, kind)))

    assert torch.equal(state["norm.weight"], torch.from_numpy(own["output_norm.weight"]))
    assert torch.equal(state["embed_tokens.weight"], stored("token_embd.weight", kinds.Q8_0))
    value = stored("blk.1.attn_v.weight", kinds.Q4_1)
    assert torch.equal(state["layers.1.self_attn.v_proj.weight"], value)
    key = stored("blk.1.attn_k.weight", kinds.Q4_1)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # of the rows of a head of 8
    rows = [8 * head + row for head in range(2) for row in order]
    assert torch.equal(state["layers.1.self_attn.k_proj.weight"], key[rows])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "rotary positions scaled by yarn"),
        ({"llama.rope.dimension_count": 4}, "heads of 8 numbers that turn 4"),
        ({"llama.embedding_length": None}, "llama.embedding_length is missing"),
        ({"llama.embedding_length": "wide"}, "llama.embedding_length is no number above 0"),
        ({"llama.attention.head_count": 0}, "head_count is no number above 0"),
        ({"llama.attention.head_count_kv": [2, 2]}, "head_count_kv is no number above 0"),
        ({"llama.attention.head_count_kv": 3}, "4 heads of 8 numbers cannot share 3 keys"),
        ({"llama.attention.head_count": 32, "llama.rope.dimension_count": 1}, "32 heads of 1 num"),
        (
            {
                "llama.embedding_length": 2**32 - 4,
                "llama.feed_forward_length": 2**32 - 1,
                "llama.rope.dimension_count": None,
            },
            "cannot be read as GGUF (",
        ),
        ({"llama.block_count": 4_000_000_000}, "no tensor blk.3999999999.attn_norm.weight"),
        ({"llama.block_count": 1}, "the tensor blk.1.attn_k.weight"),
        ({"llama.feed_forward_length": 65}, "ffn_gate.weight is (64, 32), not (65, 32)"),
    ],
)
def test_what_is_not_understood_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "lm.gguf"
    write_gguf(path, known=facts(**change))
    assert message in refusal(path)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lm.gguf"
    write_gguf(path, architecture="gemma3")
    assert "has the architecture gemma3; only llama can be read" in refusal(path)


def test_missing_and_strange_tensors_are_refused(tmp_path: Path) -> None:
    path, own = tmp_path / "lm.gguf", arrays()
    scaled = {**own, "rope_freqs.weight": np.ones(4, np.float32)}
    write_gguf(path, weights=scaled)
    assert "has the tensor rope_freqs.weight" in refusal(path)
    del own["blk.0.ffn_up.weight"]
    write_gguf(path, weights=own)
    assert "tensor blk.0.ffn_up.weight is missing, not (64, 32)" in refusal(path)
    del own["token_embd.weight"]
    write_gguf(path, weights=own)
    assert "tensor token_embd.weight is missing" in refusal(path)


def test_files_that_are_absent_cut_short_or_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "lm.gguf"
    assert "there is no such file" in refusal(path)
    path.write_bytes(b"no language model at all")
    assert "cannot be read as GGUF (GGUF magic invalid)" in refusal(path)
    path.write_bytes(b"")
    assert "cannot be read as GGUF" in refusal(path)
    write_gguf(path)
    whole = path.read_bytes()
    for length in (30, 300, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        assert "cannot be read as GGUF" in refusal(path)


def test_the_tokenizer_merges_splits_digits_and_keeps_control_tokens_whole(tmp_path: Path) -> None:
    path = tmp_path / "lm.gguf"
    write_gguf(path)
    tokenizer = load_gguf_tokenizer(path)
    listed = tokens()
    said = tokenizer.encode(f"a dog runs 12{SPECIAL[2]}{OWN}").tokens
    assert said == ["a", "Ġdog", "Ġruns", "Ġ", "1", "2", SPECIAL[2], OWN]
    assert tokenizer.get_vocab_size() == len(listed)
    assert all(tokenizer.token_to_id(token) == index for index, token in enumerate(listed))
    special = tokenizer.get_added_tokens_decoder()
    assert {token.content for token in special.values() if token.special} == set(SPECIAL)
    line = "A dog's café, naïve 犬\n"
    assert tokenizer.decode(tokenizer.encode(line).ids) == line
    assert tokenizer.decode(tokenizer.encode(f"x{SPECIAL[0]}").ids) == "x"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "a tokenizer of the kind llama with the split smollm"),
        ({"tokenizer.ggml.pre": "qwen2"}, "the kind gpt2 with the split qwen2; only gpt2 with"),
        ({"tokenizer.ggml.pre": None}, "with the split none"),
        ({"tokenizer.ggml.model": None}, "tokenizer.ggml.model is missing"),
        ({"tokenizer.ggml.tokens": ["a", "b", "a"]}, "two tokens are the same"),
        ({"tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.merges": ["a b"]}, "merges"),
        ({"tokenizer.ggml.merges": [*MERGES, "a"]}, "merges"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "but kinds of 2"),
    ],
)
def test_other_tokenizers_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "lm.gguf"
    write_gguf(path, known=facts(**change))
    assert message in refusal(path, load_gguf_tokenizer)


def test_a_file_that_is_not_there_has_known_sizes_or_none() -> None:
    with torch.device("meta"):
        model = random_language_model("elsewhere/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    with pytest.raises(ConfigError, match="the sizes of elsewhere/other"):
        random_language_model("elsewhere/other.gguf")
