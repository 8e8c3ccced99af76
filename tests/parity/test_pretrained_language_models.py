"""Language models of `transformers` read into our modules: the same logits, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from capsmith.errors import CheckpointError
from capsmith.models.gpt2 import GPT2
from capsmith.models.llama import Llama
from capsmith.models.pretrained_language_models import (
    language_model_config,
    load_language_model,
    load_tokenizer,
)

LLAMA = {
    "vocab_size": 83,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def published(kind: str) -> Any:
    """A random model of `transformers`, its biases not zero."""
    torch.manual_seed(0)
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(
            vocab_size=83, n_positions=40, n_embd=48, n_layer=2, n_head=4, initializer_range=0.3,
            bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
    elif kind == "qwen2":
        config = transformers.Qwen2Config(tie_word_embeddings=True, **LLAMA)
        model = transformers.Qwen2ForCausalLM(config)
    else:
        rope = {"rope_type": "default", "rope_theta": 500.0}
        config = transformers.LlamaConfig(
            tie_word_embeddings=kind == "smollm", rope_parameters=rope, **LLAMA
        )
        model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "smollm", "qwen2"])
def test_a_folder_is_read_into_a_module_with_the_same_logits(kind: str, tmp_path: Path) -> None:
    theirs = published(kind)
    theirs.save_pretrained(tmp_path)
    ours = load_language_model(tmp_path)
    assert type(ours) is (GPT2 if kind == "gpt2" else Llama)
    assert language_model_config(theirs.config) == ours.config
    prefix, tokens = torch.randn(2, 5, 48), torch.randint(0, 83, (2, 7))
    with torch.inference_mode():
        vectors = torch.cat([prefix, theirs.get_input_embeddings()(tokens)], 1)
        expected = theirs(inputs_embeds=vectors).logits
        logits = ours.head(ours.hidden(tokens, prefix, torch.arange(2)))
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "relu"}, "activation_function = relu; only gelu_new"),
        ({"n_inner": 96}, "n_inner = 96"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ],
)
def test_a_gpt2_that_computes_otherwise_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        language_model_config(transformers.GPT2Config(n_embd=48, **change))


def test_other_families_and_rotations_are_refused() -> None:
    with pytest.raises(CheckpointError, match="a opt cannot be read; the families are gpt2"):
        language_model_config(transformers.OPTConfig())
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(CheckpointError, match="rotary positions of type linear"):
        language_model_config(transformers.LlamaConfig(rope_parameters=rope, **LLAMA))


def test_the_published_sizes_of_gpt2_are_those_of_the_facts() -> None:
    with torch.device("meta"):
        small = GPT2(language_model_config(transformers.GPT2Config()))
        chinese = GPT2(language_model_config(transformers.GPT2Config(vocab_size=21128)))
    counts = [sum(p.numel() for p in model.parameters()) for model in (small, chinese)]
    assert counts == [124_439_808, 102_068_736]


def test_a_bert_tokenizer_of_a_chinese_gpt2_is_read(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "一", "只", "狗", "在", "跑"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("一只狗在跑", add_special_tokens=False).ids == [5, 6, 7, 8, 9]
    tokenizer.save(str(tmp_path / "out.json"))
