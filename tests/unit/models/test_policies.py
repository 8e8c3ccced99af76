"""What trains under each policy: exactly that, and gradients reach it and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from capsmith.errors import ConfigError  # noqa: E402
from capsmith.models.caption_model import CaptionModel  # noqa: E402
from capsmith.models.mappers import MLPConfig, MLPMapper  # noqa: E402
from capsmith.models.policies import apply_policy, finished, trainable_names  # noqa: E402
from tests.unit.models.toys import END, KINDS, ROWS, START, WIDTH, language_model  # noqa: E402

CAPTIONS = [[5, 6, 7], [9, 10]]


class Pooled(torch.nn.Module):
    """A toy encoder with dropout: pixels (B, 3, 4, 4) to features (B, 1, 20)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 20))
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.dropout(torch.tanh(self.layer(pixels)))[:, None]


def captioner(kind: str, layers: int = 3) -> CaptionModel:
    mapper = MLPMapper(MLPConfig(input_width=20, rows=ROWS, width=WIDTH))
    language = language_model(kind, layers=layers)
    return CaptionModel(mapper, language, start_tokens=[START], end_token=END, encoder=Pooled())


def train_step(model: CaptionModel) -> torch.Tensor:
    pixels = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    loss = model.loss(model.features(pixels), *model.tensors(CAPTIONS))
    loss.backward()
    return loss


def names(model: CaptionModel, *starts: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(starts)}


OUTER = {
    "gpt2": ("wte", "wpe", "h.0", "h.2", "ln_f"),
    "llama": ("embed_tokens", "layers.0", "layers.2", "norm", "lm_head"),
    "lstm": ("words", "layers.0", "layers.2", "output"),
    "gru": ("words", "layers.0", "layers.2", "output", "initial"),
    "cross-attention": ("tokens", "positions", "layers.0", "layers.2", "norm", "bias"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["mapper", "mapper+lm", "mapper+outer-blocks", "all"])
def test_exactly_what_the_policy_names_trains(kind: str, policy: Any) -> None:
    model = captioner(kind).train()
    apply_policy(model, policy)
    parts = {
        "mapper": ("mapper.",),
        "mapper+lm": ("mapper.", "language_model."),
        "mapper+outer-blocks": ("mapper.", *(f"language_model.{part}" for part in OUTER[kind])),
        "all": ("",),
    }
    expected = names(model, *parts[policy])
    assert trainable_names(model) == expected
    train_step(model)
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == expected
    for name, parameter in model.named_parameters():
        if name in expected and "k_proj.bias" not in name and "key" not in name:
            assert parameter.grad.abs().sum() > 0, name


def test_outer_blocks_of_gpt2_are_those_that_clipxgpt_trained() -> None:
    """Its published code counts tensors: the first 14 and the last 14 of a GPT-2."""
    model = captioner("gpt2", layers=4)
    apply_policy(model, "mapper+outer-blocks")
    every = [name for name, _ in model.language_model.named_parameters()]
    assert trainable_names(model.language_model) == {*every[:14], *every[-14:]}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "cross-attention"])
def test_low_rank_parts_train_alone_and_merge_exactly(kind: str) -> None:
    model = captioner(kind).train()
    before = {name: tensor.clone() for name, tensor in model.language_model.state_dict().items()}
    inputs = torch.randn(2, 1, 20), *model.tensors(CAPTIONS)
    plain = model.eval()(*inputs)
    apply_policy(model.train(), "mapper+lora", rank=4)
    torch.testing.assert_close(model.eval()(*inputs), plain)
    train_step(model.train())
    language = trainable_names(model.language_model)
    assert language
    assert all("lora_" in name for name in language)
    assert trainable_names(model) == {f"language_model.{n}" for n in language} | names(
        model, "mapper."
    )
    reached = {n for n, p in model.language_model.named_parameters() if p.grad is not None}
    assert reached == language
    with torch.no_grad():
        for name, parameter in model.language_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted = model.eval()(*inputs)
    assert not torch.allclose(adapted, plain, atol=0.1)
    model = finished(model)
    assert set(model.language_model.state_dict()) == set(before)
    torch.testing.assert_close(model(*inputs), adapted, atol=1e-3, rtol=1e-3)


def test_low_rank_parts_need_linear_layers() -> None:
    with pytest.raises(ConfigError, match="blocks have none"):
        apply_policy(captioner("lstm"), "mapper+lora")


def test_another_name_is_refused() -> None:
    policy: Any = "prefix"
    with pytest.raises(ConfigError, match='"prefix" is no policy; use one of mapper, mapper\\+lm'):
        apply_policy(captioner("gpt2"), policy)


def test_what_is_frozen_stays_in_evaluation_mode() -> None:
    model = captioner("gpt2").train()
    apply_policy(model, "mapper+outer-blocks")
    pixels = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(model.features(pixels), model.features(pixels))
    assert model.training
    assert not model.language_model.h[1].training
    assert model.language_model.h[0].training
    apply_policy(model, "all")
    model.train()
    assert not torch.allclose(model.features(pixels), model.features(pixels))


def saved_bytes(model: CaptionModel, *, encoder: bool) -> int:
    """What autograd keeps for the backward pass, parameters not counted."""
    kept: dict[int, int] = {}
    own = {parameter.data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    pixels = torch.randn(2, 3, 4, 4)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = model.features(pixels)
        if not encoder:
            loss = model.loss(features, *model.tensors(CAPTIONS))
            loss.backward()
    return sum(kept.values())


def test_frozen_parts_keep_no_autograd_memory() -> None:
    model = captioner("gpt2").train()
    apply_policy(model, "all")
    assert saved_bytes(model, encoder=True) > 0
    everything = saved_bytes(model, encoder=False)
    apply_policy(model, "mapper")
    assert saved_bytes(model, encoder=True) == 0
    assert saved_bytes(model, encoder=False) < 0.8 * everything
    assert not model.features(torch.randn(1, 3, 4, 4)).requires_grad
