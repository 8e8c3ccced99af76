"""Engines that run PyTorch modules: for validation during training, and to hold parity."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from capsmith.models.language_models import StateSpec
from capsmith.runtime.engine import Floats, Ints, Scores, State, Want


class DecodingStep(Protocol):
    """A module that follows the decoder graph contract, such as `CrossAttentionDecoder`."""

    def state_spec(self) -> list[StateSpec]:
        """The tensors of decoding state."""
        ...

    def __call__(
        self, tokens: Tensor, prefix: Tensor, parents: Tensor, top: int, *states: Tensor
    ) -> tuple[Tensor, ...]:
        """One step: top log-probabilities, top ids, logits, hidden, then the next states."""
        ...


@dataclass(frozen=True, slots=True)
class _TorchState:
    tensors: Sequence[Tensor]
    prefix_width: int


class TorchEngine:
    """Runs one of our own decoders, the modules that `export` writes as graphs. See `Engine`.

    The module is used as it is: put it in `eval()` mode first, or dropout acts.
    """

    def __init__(self, module: DecodingStep, *, vocab_size: int, device: str = "cpu") -> None:
        self._module = module
        self._vocab_size = vocab_size
        self._device = device

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are scored."""
        return self._vocab_size

    def start(self, prefix: Floats, prompt: Ints, want: Want) -> tuple[State, Scores]:
        """See `Engine.start`."""
        rows = len(prefix)
        states = [
            torch.zeros(
                (rows, *(size if isinstance(size, int) else 0 for size in spec.shape)),
                device=self._device,
            )
            for spec in self._module.state_spec()
        ]
        return self._run(states, prompt, prefix, np.arange(rows), want)

    def step(self, state: State, tokens: Ints, parents: Ints, want: Want) -> tuple[State, Scores]:
        """See `Engine.step`."""
        if not isinstance(state, _TorchState):
            raise TypeError(f"state is a {type(state).__name__}, not one that this engine made")
        nothing = np.zeros((len(tokens), 0, state.prefix_width), np.float32)
        return self._run(state.tensors, tokens[:, None], nothing, parents, want)

    @torch.inference_mode()
    def _run(
        self, states: Sequence[Tensor], tokens: Ints, prefix: Floats, parents: Ints, want: Want
    ) -> tuple[State, Scores]:
        top_logprobs, top_ids, logits, hidden, *following = self._module(
            self._tensor(tokens),
            self._tensor(prefix),
            self._tensor(parents),
            min(want.top, self._vocab_size),
            *states,
        )
        scores = Scores(
            _floats(top_logprobs),
            top_ids.cpu().numpy(),
            _floats(logits) if want.logits else None,
            _floats(hidden) if want.hidden else None,
        )
        return _TorchState(following, prefix.shape[2]), scores

    def _tensor(self, array: Floats | Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


class TransformersEngine:
    """Runs a causal language model of `transformers` that takes `inputs_embeds`. See `Engine`.

    The prefix stands before the tokens as input vectors. The cache must be a `DynamicCache`, the
    default of nearly all models.
    """

    def __init__(self, model: Any) -> None:
        """model: a `PreTrainedModel` with a language-model head, in `eval()` mode."""
        self._model = model
        self._embed = model.get_input_embeddings()

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are scored."""
        return int(self._model.get_output_embeddings().weight.shape[0])

    @torch.inference_mode()
    def start(self, prefix: Floats, prompt: Ints, want: Want) -> tuple[State, Scores]:
        """See `Engine.start`."""
        vectors = torch.from_numpy(prefix).to(self._model.device)
        return self._run(torch.cat([vectors, self._vectors(prompt)], 1), None, want)

    @torch.inference_mode()
    def step(self, state: State, tokens: Ints, parents: Ints, want: Want) -> tuple[State, Scores]:
        """See `Engine.step`."""
        # Dynamic caches never write into their tensors: a copy of the layers that hold them is
        # enough to keep the old state as it was.
        cache: Any = copy.copy(state)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.reorder_cache(torch.from_numpy(parents))
        return self._run(self._vectors(tokens[:, None]), cache, want)

    def _vectors(self, tokens: Ints) -> Tensor:
        vectors: Tensor = self._embed(torch.from_numpy(tokens).to(self._model.device))
        return vectors

    def _run(self, vectors: Tensor, cache: Any, want: Want) -> tuple[State, Scores]:
        output = self._model(
            inputs_embeds=vectors,
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=want.hidden,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1].float()
        logprobs, ids = logits.log_softmax(1).topk(min(want.top, logits.shape[1]), 1)
        hidden = _floats(output.hidden_states[-1][:, -1]) if want.hidden else None
        return output.past_key_values, Scores(
            _floats(logprobs), ids.cpu().numpy(), _floats(logits) if want.logits else None, hidden
        )


def _floats(tensor: Tensor) -> Floats:
    array: Floats = tensor.float().cpu().numpy()
    return array
