"""The stages of the recipe: each reads what earlier ones left, does one thing, and records how.

A pipeline folder (`out`) is the thread: every stage opens it, replaces its own network and writes it back. Work in
progress (rendered shards, checkpoints, records) lies under `cache`, outside version control.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import StableDiffusionPipeline

from workers.engine.perfusion.covariance import compute_covariance
from workers.engine.storybook.autoencoder_training import DecoderSettings, fit_encoder, sample_pictures, train_decoder
from workers.engine.storybook.card import write_card
from workers.engine.storybook.data import render_cache
from workers.engine.storybook.identity import CLASSES
from workers.engine.storybook.judge_training import JudgeSettings, train_attribute_judge, train_identity_judge
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge
from workers.engine.storybook.networks import (
    load_pipeline,
    make_autoencoder,
    make_text_encoder,
    make_unet,
    save_pipeline,
)
from workers.engine.storybook.scores import ModelScores, identity_accuracy, prompt_following, seconds_per_picture
from workers.engine.storybook.sheet import PROMPTS, draw_sheet
from workers.engine.storybook.text_training import TextSettings, sample_captions, train_text_encoder, train_tokenizer
from workers.engine.storybook.unet_training import Folders, UnetSettings, run_unet_training
from workers.engine.storybook.world import SIZE
from workers.engine.text import TextEncoder

log = logging.getLogger(__name__)

GUIDANCE: Final = 3.0
DEFAULT_STEPS: Final = 50


@dataclass(frozen=True)
class Options:
    """What the command line says; `init` is a pipeline folder to start from, or None for random weights."""

    out: Path
    judges: Path
    cache: Path
    init: Path | None
    minutes: float | None
    device: str
    seed: int
    workers: int
    quick: bool

    def time_for(self, default: float) -> float:
        """Return how many minutes the stage may take: a toy run takes a second."""
        return 1 / 60 if self.quick else self.minutes if self.minutes is not None else default

    def pick(self, full: int, toy: int) -> int:
        """Return the size for a full or a toy run."""
        return toy if self.quick else full


def render_data(options: Options) -> None:
    """Render the cache of pictures, masks and captions."""
    shards = {"studio": options.pick(10, 1), "outdoors": options.pick(36, 1)}
    size = options.pick(5000, 40)
    render_cache(options.cache / "data", shards=shards, shard_size=size, workers=options.workers)


def train_text(options: Options) -> None:
    """Make tokenizer and text tower anew; a U-Net trained on other encodings is of no use with them."""
    settings = TextSettings(minutes=options.time_for(2), captions=options.pick(24_000, 400), seed=options.seed)
    tokenizer = train_tokenizer(sample_captions(settings.captions))
    text_encoder, accuracy = train_text_encoder(tokenizer, settings)
    pipeline = _open(options)
    _save(options, pipeline, tokenizer=tokenizer, text_encoder=text_encoder)
    _record(options, "text-encoder", {**asdict(settings), "answers right": accuracy})


def train_autoencoder(options: Options) -> None:
    """Train the decoder; without weights to start from, write the encoder first.

    A start's encoder is kept as it is: the U-Net knows its latents.
    """
    pipeline, data = _open(options), options.cache / "data"
    if options.init is None:
        fit_encoder(pipeline.vae, sample_pictures(data, options.pick(4000, 40), options.seed))
    settings = DecoderSettings(minutes=options.time_for(4), seed=options.seed, device=options.device)
    quality = train_decoder(pipeline.vae, data, settings)
    _save(options, pipeline, autoencoder=pipeline.vae)
    _record(options, "autoencoder", {**asdict(settings), "psnr": quality, "encoder": str(options.init or "fitted")})


def train_unet(options: Options) -> None:
    """Train the U-Net, going on from its last checkpoint if there is one."""
    _save(options, _open(options))
    settings = UnetSettings(
        minutes=options.time_for(90),
        batch=options.pick(256 if options.device == "cuda" else 16, 2),
        studio_only_share=0.0 if options.init else 0.12,
        seed=options.seed,
        device=options.device,
    )
    folders = Folders(data=options.cache / "data", work=options.cache / "unet", out=options.out)
    run_unet_training(options.out, folders, settings, ranks=options.workers)
    record = json.loads((folders.work / "record.json").read_text())
    _record(options, "unet", {"started from": str(options.init or "random weights"), **record})


def train_judges(options: Options) -> None:
    """Train both judges, half of the time each; with a start, go on from the judges there are."""
    autoencoder = load_pipeline(options.out).vae
    settings = JudgeSettings(
        minutes=options.time_for(20) / 2,
        groups=options.pick(4, 2),
        identities=options.pick(6, 2),
        renders=options.pick(3, 2),
        seed=options.seed,
    )
    go_on = options.init is not None and options.judges.exists()
    identity = IdentityJudge.load(options.judges) if go_on else None
    attributes = AttributeJudge.load(options.judges) if go_on else None
    train_identity_judge(autoencoder, settings, start=identity).save(options.judges)
    train_attribute_judge(autoencoder, settings, start=attributes).save(options.judges)
    _record(options, "judge", asdict(settings))


def measure_covariance(options: Options) -> None:
    """Measure how the text tower's encodings are spread, which is what concepts are told apart by."""
    pipeline, count = load_pipeline(options.out), options.pick(20_000, 400)
    captions = sample_captions(count, first=1_000_000)
    compute_covariance(TextEncoder(pipeline.tokenizer, pipeline.text_encoder), captions).save(
        options.out / "covariance.safetensors"
    )
    _record(options, "covariance", {"captions": count})


def draw_contact_sheet(options: Options) -> None:
    """Draw the fixed prompts into `sheet.png` beside the weights."""
    pipeline = load_pipeline(options.out)
    steps, count = options.pick(DEFAULT_STEPS, 2), options.pick(len(PROMPTS), 2)
    draw_sheet(pipeline, options.out / "sheet.png", steps=steps, guidance=GUIDANCE, count=count)


# How concepts are learned here: a fast value rate and a slow target, in half the paper's steps. Measured with the
# identity judge on a cat and a teapot, against eleven other settings.
PERFUSION: Final = {
    "steps": 200,
    "batch_size": 8,
    "value_lr": 0.1,
    "embedding_lr": 0.006,
    "target_input_decay": 0.999,
    "templates": ["{}", "a {}", "the {}", "a picture of a {}", "a cartoon of a {}"],
}


def write_model_card(options: Options) -> None:
    """Score model and judges, and write the model card and `lockstep.json`."""
    pipeline = load_pipeline(options.out)
    steps, default_steps = options.pick(25, 2), options.pick(DEFAULT_STEPS, 2)
    attributes, identities = AttributeJudge.load(options.judges), IdentityJudge.load(options.judges)
    count, groups, candidates = options.pick(200, 4), options.pick(60, 1), options.pick(10, 2)
    scores = ModelScores(
        following=prompt_following(
            pipeline, attributes, count=count, steps=steps, guidance=GUIDANCE, seed=options.seed
        ),
        identity=identity_accuracy(identities, groups=groups, candidates=candidates),
        seconds=seconds_per_picture(pipeline, steps=default_steps, guidance=GUIDANCE),
        steps=steps,
        default_steps=default_steps,
        guidance=GUIDANCE,
    )
    write_card(options.out, scores, _records(options))
    facts = {
        "name": "storybook",
        "family": "stable-diffusion",
        "size": SIZE,
        "size_multiple": 8,
        "max_size": SIZE,
        "superclasses": list(CLASSES),
        "default_steps": DEFAULT_STEPS,
        "default_guidance": GUIDANCE,
        "default_key_lock": "local",
        "gate_bias": {"local": 0.6, "global": 0.5},
        "gate_temperature": 0.15,
        "perfusion": PERFUSION,
        "prediction_type": pipeline.scheduler.config.prediction_type,
    }
    (options.out / "lockstep.json").write_text(json.dumps(facts, indent=2) + "\n")


STAGES: Final = {
    "data": render_data,
    "text-encoder": train_text,
    "autoencoder": train_autoencoder,
    "unet": train_unet,
    "judge": train_judges,
    "covariance": measure_covariance,
    "sheet": draw_contact_sheet,
    "card": write_model_card,
}
"""In the order in which a run from scratch needs them."""


def _open(options: Options) -> StableDiffusionPipeline:
    """Open the pipeline in `out`, else the one to start from, else one with random weights."""
    for folder in (options.out, options.init):
        if folder is not None and (folder / "model_index.json").exists():
            return load_pipeline(folder)
    torch.manual_seed(options.seed)
    tokenizer = train_tokenizer(sample_captions(options.pick(24_000, 400)))
    save_pipeline(
        options.out,
        autoencoder=make_autoencoder(options.pick(32, 8)),
        text_encoder=make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=make_unet((32, 32, 32) if options.quick else (64, 96, 192)),
    )
    return load_pipeline(options.out)


def _save(options: Options, pipeline: StableDiffusionPipeline, **replaced: Any) -> None:
    parts = {
        "autoencoder": pipeline.vae,
        "text_encoder": pipeline.text_encoder,
        "tokenizer": pipeline.tokenizer,
        "unet": pipeline.unet,
    }
    save_pipeline(options.out, **{**parts, **replaced})


def _record(options: Options, stage: str, facts: dict[str, Any]) -> None:
    folder = options.cache / "records"
    folder.mkdir(parents=True, exist_ok=True)
    stamped = {"finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), **facts}
    (folder / f"{stage}.json").write_text(json.dumps(stamped, indent=1) + "\n")


def _records(options: Options) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((options.cache / "records").glob("*.json"))}
