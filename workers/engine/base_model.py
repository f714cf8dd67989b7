"""A base model (or a student of one): a diffusers folder, opened for conditioning, denoising and decoding.

Beside what diffusers writes, a folder may hold files of ours:

    covariance.safetensors   the metric of its text encoder (perfusion/covariance.py); no concept can be used without
    lockstep.json            {"name": ..., "guidance_interval": [least, most] (schedule.py), "perfusion" and
                             "distillation": {settings that differ from the papers'}, "validation": {"clip": ...,
                             "student": ... or "steps": ...} and "preview": {"every": ..., the same}
                             (perfusion/drawing.py), "segmenter": a CLIPSeg folder or hub id to make masks with
                             (perfusion/segmenter.py), "decoder": the same of an AutoencoderTiny, "guidance": one of
                             family.Guidance, and of a student "student": {...} (dmd/student_model.py), ...}; other
                             keys (known superclasses, ...) are for the API and are not read here
    prompts.txt              prompts that its pictures can show, one a line: what a student of it learns to draw

Weights are read from safetensors only: a pickled checkpoint can run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors import SafetensorError

from workers.engine import attention
from workers.engine.attention import KeyValueProjections
from workers.engine.autoencoder import Autoencoder
from workers.engine.conditioning import Conditioner
from workers.engine.denoiser import Denoiser
from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.networks import weights_digest
from workers.engine.dmd.student_model import StudentFacts
from workers.engine.errors import CovarianceMissing, ModelUnreadable, SizeUnsupported
from workers.engine.family import Family, Guidance
from workers.engine.hub import beside, local_folder
from workers.engine.perfusion.concept import Concept, ConceptFile
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.covariance import Covariance
from workers.engine.perfusion.drawing import PreviewFacts, ValidationFacts
from workers.engine.schedule import NoiseSchedule
from workers.engine.text import TextEncoder

# The plain full-precision weights, whole or sharded; hubs also hold pickles, fp16 variants and single-file copies.
_HUB_FILES = [
    "*.json",
    "covariance.safetensors",
    "prompts.txt",
    "scheduler/*",
    "tokenizer/*",
    "tokenizer_2/*",
    *(f"{part}/*.json" for part in ("text_encoder", "text_encoder_2", "unet", "vae")),
    *(f"{part}/{stem}{shard}.safetensors" for part, stem in (
        ("text_encoder", "model"),
        ("text_encoder_2", "model"),
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
    ) for shard in ("", "-*-of-*")),
]  # fmt: skip
_DECODER_FILES = ["config.json", "diffusion_pytorch_model.safetensors"]


@dataclass(frozen=True)
class BaseModel:
    """Everything that training and generation need of one model, on one device."""

    name: str
    text: TextEncoder
    projections: KeyValueProjections
    denoiser: Denoiser
    guidance: Guidance
    autoencoder: Autoencoder
    covariance: Covariance | None
    perfusion: PerfusionConfig
    distillation: DistillationConfig
    prompts: tuple[str, ...]  # its own, to distil a student with; may be none
    device: torch.device
    student: StudentFacts | None  # how it draws, where it is one
    validation: ValidationFacts | None  # of trainings on it; without, the last step's concept is taken
    preview: PreviewFacts | None  # of trainings on it; without, they show no pictures on the way
    segmenter: str | None  # a CLIPSeg folder or hub id; without, masks are the model's own attention

    @classmethod
    def load(cls, path_or_hub_id: str | Path, *, device: torch.device, dtype: torch.dtype) -> BaseModel:
        """Open a model of the shape of Stable Diffusion 1.x/2.x or of SDXL.

        The U-Net and autoencoder run in ``dtype``; the text towers and the edit stay in float32, where they cost
        little. Raises ModelUnreadable, ModelUnsupported, SettingsInvalid or, for a hub that does not answer,
        ModelUnavailable.
        """
        folder = local_folder(str(path_or_hub_id), _HUB_FILES)
        family = Family.of(_json(folder / "model_index.json"))
        card = _json(folder / "lockstep.json") if (folder / "lockstep.json").exists() else {}
        try:
            text = family.text_encoder(folder)
            unet = _diffusers_part(UNet2DConditionModel, folder, "unet", dtype)
            autoencoder = _autoencoder(family, folder, card.get("decoder"), dtype).to(device)
            schedule = NoiseSchedule.load(folder, _interval(card.get("guidance_interval", [0, 1])))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelUnreadable(f"{path_or_hub_id}: {error}") from error
        for part in (*(tower.model for tower in text.towers), unet):
            part.requires_grad_(False).eval().to(device)
        family.check(text, unet)
        projections = KeyValueProjections.of(unet)
        attention.install(unet, projections)
        denoiser = Denoiser(unet, schedule)
        guidance = Guidance.of(denoiser, card.get("guidance"))
        drawn = guidance.default_drawing(denoiser) | dict(card)
        covariance_file = folder / "covariance.safetensors"
        return cls(
            name=str(card.get("name", Path(path_or_hub_id).name)),
            text=text,
            projections=projections,
            denoiser=denoiser,
            guidance=guidance,
            autoencoder=autoencoder,
            covariance=Covariance.load(covariance_file).to(device) if covariance_file.exists() else None,
            perfusion=PerfusionConfig().override(_mapping(card.get("perfusion", {}))),
            distillation=family.distillation.override(_mapping(card.get("distillation", {}))),
            prompts=_lines(folder / "prompts.txt"),
            device=device,
            student=StudentFacts.of(card),
            validation=ValidationFacts.of(drawn, folder),
            preview=PreviewFacts.of(drawn, folder),
            segmenter=_segmenter(card.get("segmenter"), folder),
        )

    @cached_property
    def fingerprint(self) -> str:
        """The text encoder's hash: concepts learned on another one are refused."""
        return self.text.fingerprint()

    @cached_property
    def weights(self) -> str:
        """The U-Net's hash: which teacher drew a pair, whose a student is. The same in whatever precision it runs."""
        return weights_digest(self.denoiser.unet, torch.bfloat16)

    @cached_property
    def covariance_sha256(self) -> str:
        """The metric's hash; raises CovarianceMissing where there is none."""
        if self.covariance is None:
            raise CovarianceMissing(f"model {self.name!r} has no covariance.safetensors")
        return self.covariance.sha256

    @property
    def conditioner(self) -> Conditioner:
        """The edit path over this model's text encoder and projections."""
        return Conditioner(self.text, self.projections, self.covariance, native_size=self.native_size)

    @property
    def native_size(self) -> int:
        """The side, in pixels, of the pictures it was trained on."""
        return int(self.denoiser.unet.config.sample_size) * self.autoencoder.factor

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Return (C, H, W) of a picture's latents; raises SizeUnsupported."""
        factor = self.autoencoder.factor
        least = factor * 2 ** (len(self.denoiser.unet.config.block_out_channels) - 1)  # one cell on the coarsest level
        most = 2 * self.native_size
        for side in (width, height):
            if side % factor or not least <= side <= most:
                bounds = f"multiples of {factor} from {least} to {most}"
                raise SizeUnsupported(f"{width} x {height}: sides must be {bounds}")
        return int(self.denoiser.unet.config.in_channels), height // factor, width // factor

    def adopt(self, file: ConceptFile) -> Concept:
        """Return a file's concept on this device; raises ConceptBaseMismatch where it was learned elsewhere."""
        concept = file.require(
            encoder_fingerprint=self.fingerprint,
            encoder_widths=self.text.widths,
            covariance_sha256=self.covariance_sha256,
            layer_widths=self.projections.widths,
        )
        return concept.to(self.device)


def _json(path: Path) -> Mapping[str, object]:
    try:
        return _mapping(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ModelUnreadable(f"{path.name}: {error}") from error


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text() if path.exists() else ""
    except (OSError, ValueError) as error:
        raise ModelUnreadable(f"{path.name}: {error}") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ModelUnreadable("a JSON object is due")
    return value


def _segmenter(said: object, folder: Path) -> str | None:
    match said:
        case None:
            return None
        case str():
            return beside(folder, said)
        case _:
            raise ModelUnreadable(f"segmenter: a folder or a hub id is due, not {said!r}")


def _autoencoder(family: Family, folder: Path, decoder: object, dtype: torch.dtype) -> Autoencoder:
    """Open a model's autoencoder, and the ``decoder`` that its lockstep.json names, if any."""
    network = _diffusers_part(family.vae, folder, "vae", dtype)
    if network.config.get("force_upcast") and dtype == torch.float16:
        network.float()  # its activations overflow half precision
    return Autoencoder(network, _decoder(decoder, folder, dtype))


def _decoder(said: object, folder: Path, dtype: torch.dtype) -> AutoencoderTiny | None:
    """Open the tiny autoencoder that decodes for the model; raises ModelUnreadable, and what diffusers does."""
    match said:
        case None:
            return None
        case str():
            place = local_folder(beside(folder, said), _DECODER_FILES)
            if (found := _json(place / "config.json").get("_class_name")) != AutoencoderTiny.__name__:
                raise ModelUnreadable(f"decoder: an AutoencoderTiny is due, not {found!r}")
            return _diffusers_part(AutoencoderTiny, place, "", dtype)
        case _:
            raise ModelUnreadable(f"decoder: a folder or a hub id is due, not {said!r}")


def _interval(shares: object) -> tuple[float, float]:
    match shares:
        case [int() | float() as least, int() | float() as most] if 0 <= least < most <= 1:
            return float(least), float(most)
        case _:
            raise ModelUnreadable(f"guidance_interval: two rising shares from 0 to 1 are due, not {shares!r}")


def _diffusers_part(part_class, folder: Path, subfolder: str, dtype: torch.dtype):  # type: ignore[no-untyped-def]
    """Load one network; memory-saving meta loading would need another package and saves nothing at these sizes."""
    return part_class.from_pretrained(
        folder, subfolder=subfolder, torch_dtype=dtype, use_safetensors=True, low_cpu_mem_usage=False
    )
