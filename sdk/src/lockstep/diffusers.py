"""Concepts in a plain diffusers pipeline, without a server. Needs the extra: ``pip install 'lockstep[diffusers]'``.

::

    pipe = StableDiffusionPipeline.from_pretrained("models/storybook")
    concepts = Concepts(pipe, covariance="models/storybook/covariance.safetensors")
    concepts.load("tom-v1.safetensors", name="tom")
    how = sampling(pipe, steps=20, guidance=3.0, interval=(0, 0.85))
    picture = pipe(**concepts.prompt("<tom> on the beach", gate_bias=0.6), **how).images[0]

``prompt`` encodes the text with a concept's embedding at its placeholder, takes the concept's direction out, and adds
one column for each loaded concept: how far its gate is open at each token. The cross-attention layers project what is
left as ever and add the gates times the concepts' outputs. The negative prompt has closed gates, and any other call of
the pipeline has no such columns: both are drawn as if no concept were loaded.

Source: Tewel et al. 2023, "Key-Locked Rank One Editing for Text-to-Image Personalization" (Perfusion), Eq. (3), with
the local key lock; its appendix B for several concepts in one prompt.
Dimensions:  N token positions, D encoder width, J concepts, O_l width of cross-attention layer l, O their sum
Symbols:     e encodings (N, D), i target inputs (J, D), o outputs (J, O_l), M the inverse covariance (D, D)

    r_j = i_j' M e / i_j' M i_j       g_j = sigmoid((r_j - gate_bias_j) / gate_temperature)
    h(e) = W e_perp + sum_j g_j o_j   e_perp = e - sum_j c_j i_j,   c = (i M i')^-1 i M e
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from safetensors import safe_open
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffusers import StableDiffusionPipeline
    from diffusers.models.attention_processor import Attention

_FORMAT = "lockstep-concept/1"
_PLACEHOLDER = re.compile(r"<([a-z0-9][a-z0-9-]*)>")
_GATE_BIAS = 0.7  # where neither caller nor file names one
_PARALLEL = 1 - 1e-5  # two directions closer than this cannot be told apart in float32


@dataclass(frozen=True)
class _Concept:
    target_input: Tensor  # (D,)
    embedding: Tensor  # (D,)
    stand_in: int  # the token whose position the embedding takes
    column: int  # its place among the gates
    gate_bias: float  # recommended


class Concepts:
    """The concepts that a Stable Diffusion 1.x/2.x pipeline has learned to draw.

    ``covariance`` is the base model's ``covariance.safetensors``. Raises ValueError for a pipeline of another family.
    """

    def __init__(self, pipe: StableDiffusionPipeline, covariance: str | PathLike[str]) -> None:
        self._pipe = pipe
        self._metric = _read(covariance)[0]["inverse_covariance"].float()
        self._covariance_sha256 = hashlib.sha256(self._metric.numpy().tobytes()).hexdigest()
        self._concepts: dict[str, _Concept] = {}
        self._layers = _install(pipe)

    def load(self, path: str | PathLike[str], *, name: str) -> None:
        """Read a concept file; prompts then draw the concept as ``<name>``. Raises ValueError where it does not fit."""
        if not _PLACEHOLDER.fullmatch(f"<{name}>") or name in self._concepts:
            raise ValueError(f"{name!r} is taken, or is not made of lower-case letters, digits and hyphens")
        tensors, said = _read(path)
        if said.get("format") != _FORMAT:
            raise ValueError(f"{path} has the format {said.get('format')!r}; {_FORMAT!r} is read")
        if "embedding_2" in tensors:
            raise ValueError(
                f"{path} was learned on a model with two text encoders, as SDXL has; only a server draws it"
            )
        self._check(path, said)
        widths = json.loads(said["layer_widths"])
        values = torch.split(tensors["value_outputs"].float(), widths)
        trained = "key_outputs" in tensors
        keys = torch.split(tensors["key_outputs"].float(), widths) if trained else [None] * len(widths)
        for layer, value, key in zip(self._layers, values, keys, strict=True):
            layer.add(tensors["superclass_encoding"].float(), value, key)
        self._concepts[name] = _Concept(
            target_input=tensors["target_input"].float(),
            embedding=tensors["embedding"].float(),
            stand_in=self._tokens(said["superclass"])[-1],
            column=len(self._concepts),
            gate_bias=_recommended_bias(said),
        )

    def prompt(
        self,
        text: str,
        negative_prompt: str = "",
        *,
        gate_bias: float | Mapping[str, float] | None = None,
        gate_temperature: float = 0.15,
    ) -> dict[str, Tensor]:
        """Return ``prompt_embeds`` and ``negative_prompt_embeds`` for the pipeline, each (1, N, D + J).

        A lower ``gate_bias``, for all concepts or by name, means more of the concept and less of the text; by default
        each concept's is what its file recommends, or 0.7. Raises ValueError for an unknown placeholder, a prompt too
        long, and concepts that cannot be told apart.
        """
        edited, named = self._encode(text)
        negative, strays = self._encode(negative_prompt)
        if strays:
            raise ValueError(f"a negative prompt names no concepts, but this one has <{next(iter(strays))}>")
        gates = edited.new_zeros(len(edited), len(self._concepts))  # (N, J)
        if named:
            biases = [_bias(gate_bias, name, concept) for name, concept in named.items()]
            edited, opened = self._edit(edited, list(named.values()), edited.new_tensor(biases), gate_temperature)
            gates[:, [concept.column for concept in named.values()]] = opened
        closed = torch.zeros_like(gates)
        return {
            "prompt_embeds": torch.cat([edited, gates], dim=-1)[None],
            "negative_prompt_embeds": torch.cat([negative, closed], dim=-1)[None],
        }

    def _edit(
        self, encodings: Tensor, concepts: list[_Concept], biases: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Return e_perp (N, D) and the gates (N, J) of these concepts."""
        targets = torch.stack([concept.target_input for concept in concepts]).to(encodings)  # (J, D)
        whitened = targets @ self._metric.to(encodings)  # (J, D)
        gram = targets @ whitened.T  # (J, J)
        energy = gram.diagonal()  # (J,)
        cosines = gram / (energy[:, None] * energy[None, :]).sqrt()
        if bool((cosines.abs().fill_diagonal_(0) >= _PARALLEL).any()):
            raise ValueError("two concepts of the prompt point the same way; they cannot be told apart")
        similarity = encodings @ whitened.T  # (N, J)
        removal = torch.linalg.solve(gram, similarity.T).T  # (N, J)
        gates = torch.sigmoid((similarity / energy - biases) / temperature)  # (N, J)
        return encodings - removal @ targets, gates

    def _encode(self, text: str) -> tuple[Tensor, dict[str, _Concept]]:
        """Return the encodings (N, D) of a prompt in float32, and the concepts that it names."""
        tokenizer, encoder = self._pipe.tokenizer, self._pipe.text_encoder
        tokens: list[int] = []
        embeddings: dict[int, Tensor] = {}
        named: dict[str, _Concept] = {}
        for index, piece in enumerate(_PLACEHOLDER.split(text)):  # text and names alternate
            if index % 2 == 0:
                tokens += self._tokens(piece)
                continue
            if piece not in self._concepts:
                raise ValueError(f"the prompt names <{piece}>, but no concept of that name was loaded")
            named[piece] = self._concepts[piece]
            tokens.append(named[piece].stand_in)
            embeddings[len(tokens)] = named[piece].embedding  # begin-of-text shifts every token by one
        room = tokenizer.model_max_length - 2
        if len(tokens) > room:
            raise ValueError(f"the prompt has {len(tokens)} tokens; this model reads {room}")
        padding = [tokenizer.pad_token_id] * (room - len(tokens))
        ids = torch.tensor([[tokenizer.bos_token_id, *tokens, tokenizer.eos_token_id, *padding]])  # (1, N)
        with torch.no_grad(), _replaced(encoder.get_input_embeddings(), embeddings):
            return encoder(ids.to(encoder.device)).last_hidden_state[0].float(), named

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self._pipe.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return tokens

    def _check(self, path: str | PathLike[str], said: Mapping[str, str]) -> None:
        """Raise ValueError for a concept that was learned on another model."""
        learned = f"{path} was learned on {said['base_model']!r}"
        if said["covariance"] != self._covariance_sha256:
            raise ValueError(f"{learned}, with another covariance")
        if json.loads(said["layer_widths"]) != [layer.width for layer in self._layers]:
            raise ValueError(f"{learned}, which has other cross-attention layers")
        # The fingerprint is of the weights in float32, which a pipeline in half precision no longer has.
        full = self._pipe.text_encoder.dtype == torch.float32
        if full and said["encoder"] != _fingerprint(self._pipe):
            raise ValueError(f"{learned}, which has another text encoder")


def sampling(
    pipe: StableDiffusionPipeline, *, steps: int, guidance: float, interval: tuple[float, float] = (0, 1)
) -> dict[str, Any]:
    """Return what to call the pipeline with so that guidance acts in an interval only: a model's `guidance_interval`.

    Its ends are shares of the noise levels, 1 being pure noise.
    """
    pipe.scheduler.set_timesteps(steps)
    least, most = (share * pipe.scheduler.config.num_train_timesteps for share in interval)
    # Where it does not act, hardly above 1: at 1 the pipeline would leave out a half that other steps need.
    scales = [guidance if least <= t < most else 1 + 1e-6 for t in pipe.scheduler.timesteps.tolist()]

    def next_scale(pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._guidance_scale = scales[min(step + 1, steps - 1)]
        return tensors

    return {"num_inference_steps": steps, "guidance_scale": scales[0], "callback_on_step_end": next_scale}


class _EditedCrossAttention:
    """Cross-attention that splits the gates off the encodings and adds what they let through."""

    def __init__(self, attention: Attention) -> None:
        self._key_weight: Tensor = attention.to_k.weight
        self._keys: list[Tensor] = []  # (O_l,) of each concept
        self._values: list[Tensor] = []

    @property
    def width(self) -> int:
        """O_l."""
        return len(self._key_weight)

    def add(self, superclass_encoding: Tensor, value: Tensor, key: Tensor | None) -> None:
        """Append a concept's outputs; keys that were not trained are locked to those of the superclass."""
        locked = self._key_weight.detach().float() @ superclass_encoding.to(self._key_weight.device)
        self._keys.append(locked if key is None else key)
        self._values.append(value)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,  # noqa: ARG002 - diffusers passes it; padding is attended to
    ) -> Tensor:
        """Attend from P places (B, P, O_l) to the tokens (B, N, D + J)."""
        encodings, gates = encoder_hidden_states.tensor_split([attn.to_k.in_features], dim=-1)
        key, value = attn.to_k(encodings), attn.to_v(encodings)  # (B, N, O_l)
        if loaded := gates.shape[-1]:
            key = key + gates @ torch.stack(self._keys[:loaded]).to(key)
            value = value + gates @ torch.stack(self._values[:loaded]).to(value)
        projected = (attn.to_q(hidden_states), key, value)
        query, key, value = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in projected)
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, H, P, d)
        output: Tensor = attn.to_out[0](attended.transpose(1, 2).flatten(2))  # (B, P, O_l)
        return output


def _install(pipe: StableDiffusionPipeline) -> list[_EditedCrossAttention]:
    """Give every cross-attention layer its processor, in the order that concept files have; raises ValueError."""
    if getattr(pipe, "text_encoder_2", None) is not None:
        raise ValueError("this pipeline has two text encoders, as SDXL has; its concepts are drawn by a server only")
    width = pipe.text_encoder.config.hidden_size
    layers: list[_EditedCrossAttention] = []
    for name, attention in pipe.unet.named_modules():
        if not name.endswith("attn2"):
            continue
        if attention.to_k.in_features != width or attention.to_k.bias is not None or attention.norm_cross:
            raise ValueError(f"layer {name} is not plain cross-attention over the pipeline's one text encoder")
        layers.append(_EditedCrossAttention(attention))
        attention.set_processor(layers[-1])
    return layers


def _read(path: str | PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        said = dict(file.metadata() or {})
        return {name: file.get_tensor(name) for name in file.keys()}, said  # noqa: SIM118 - not a mapping


def _recommended_bias(said: Mapping[str, str]) -> float:
    """The file's word, if it is of a lock that can be drawn with here."""
    return float(said["gate_bias"]) if "gate_bias" in said and said["key_lock"] != "global" else _GATE_BIAS


def _bias(asked: float | Mapping[str, float] | None, name: str, concept: _Concept) -> float:
    if asked is None or isinstance(asked, Mapping):
        return (asked or {}).get(name, concept.gate_bias)
    return asked


def _fingerprint(pipe: StableDiffusionPipeline) -> str:
    """Hash the text encoder's weights and vocabulary as the server does."""
    digest = hashlib.sha256()
    for name, parameter in sorted(pipe.text_encoder.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    backend = json.loads(pipe.tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = [sorted(backend["vocab"].items()), backend["merges"], pipe.tokenizer.model_max_length]
    digest.update(json.dumps(vocabulary).encode())
    return digest.hexdigest()


@contextmanager
def _replaced(table: torch.nn.Module, embeddings: Mapping[int, Tensor]) -> Iterator[None]:
    """Put vectors (D,) in place of the token embeddings at these positions of the one prompt."""

    def replace(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        for position, vector in embeddings.items():
            output[0, position] = vector.to(output)
        return output

    handle = table.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
