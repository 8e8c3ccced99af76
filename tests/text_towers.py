"""Tiny random models of `transformers` that have a text tower, saved with real tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

FAMILIES = ("clip", "chinese_clip", "siglip")
CONTEXT = 12
SHARED = 12
SIDE = {"height": 32, "width": 32}
WORDS = (
    "a cat sleeps on a mat",
    "two dogs run on the beach",
    "a small dog in the rain",
    "猫在睡觉",
)
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
}


def save(family: str, folder: Path) -> Any:
    """Save a model of the family with its tokenizer and image processor; gives the model."""
    torch.manual_seed(0)
    tokenizer = {"clip": _clip, "chinese_clip": _bert, "siglip": _unigram}[family]()
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    ids |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    known = {name: number for name, number in ids.items() if number is not None}
    sizes: dict[str, Any] = {"text_config": _TEXT | known, "vision_config": _VISION}
    model: Any
    processor: Any = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIDE)
    if family == "clip":
        model = transformers.CLIPModel(transformers.CLIPConfig(**sizes, projection_dim=SHARED))
    elif family == "chinese_clip":
        config = transformers.ChineseCLIPConfig(**sizes, projection_dim=SHARED)
        model = transformers.ChineseCLIPModel(config)
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(**sizes))
        processor = SiglipImageProcessorPil(size=SIDE)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def _clip() -> Any:
    """CLIP's own tokenizer with pairs merged from the words."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(
            vocab_size=400,
            end_of_word_suffix="</w>",
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|startoftext|>", "<|endoftext|>"],
            show_progress=False,
        ),
    )
    state = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    return transformers.CLIPTokenizer(vocab=state["vocab"], merges=merges, model_max_length=CONTEXT)


def _bert() -> Any:
    words = sorted({word for text in WORDS[:-1] for word in text.split()} | set(WORDS[-1]))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    return transformers.BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})


def _unigram() -> Any:
    """As SigLIP's: pieces of words with </s> at the end, which is padding too."""
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.train_from_iterator(
        WORDS,
        trainers.UnigramTrainer(
            vocab_size=60, special_tokens=["</s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    unigram.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", unigram.token_to_id("</s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=unigram, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    )
