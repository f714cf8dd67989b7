"""The stages of the recipe: each reads what earlier ones left, does one thing, and records how.

A pipeline folder (`out`) is the thread: every stage opens it, replaces its own network and writes it back. Work in
progress (rendered shards, checkpoints, records) lies under `cache`, outside version control.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import StableDiffusionPipeline

from workers.engine.perfusion.covariance import compute_covariance
from workers.engine.storybook.autoencoder_training import DecoderSettings, fit_encoder, sample_pictures, train_decoder
from workers.engine.storybook.card import write_card
from workers.engine.storybook.clip_networks import load_clip, round_to_half, save_clip, text_tower
from workers.engine.storybook.clip_training import ClipSettings, train_clip
from workers.engine.storybook.data import render_cache
from workers.engine.storybook.distilling import make_bundled_student
from workers.engine.storybook.drawing import Drawing, draw, load_model
from workers.engine.storybook.facts import GUIDANCE, write_facts
from workers.engine.storybook.judge_pictures import JudgeShards, render_judge_shards
from workers.engine.storybook.judge_training import JudgeSettings, train_attribute_judge, train_identity_judge
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge
from workers.engine.storybook.networks import (
    load_pipeline,
    make_autoencoder,
    make_text_encoder,
    make_unet,
    save_pipeline,
)
from workers.engine.storybook.phrase_training import PhraseSettings, train_phrases
from workers.engine.storybook.refit import refit_cross_attention
from workers.engine.storybook.scores import (
    ModelScores,
    held_out,
    identity_accuracy,
    prompt_following,
    seconds_per_picture,
)
from workers.engine.storybook.sheet import PROMPTS, write_grid
from workers.engine.storybook.student_material import Workplace
from workers.engine.storybook.text_training import sample_captions, train_tokenizer
from workers.engine.storybook.unet_training import Folders, UnetSettings, run_unet_training
from workers.engine.text import TextEncoder, Tower

log = logging.getLogger(__name__)

DEFAULT_STEPS: Final = 50
_FIRST_PROMPT: Final = 1 << 29
"""Held-out pictures are numbered from here: the benchmark asks for others."""


@dataclass(frozen=True)
class Options:
    """What the command line says.

    `models` holds the folders `storybook`, `storybook-clip`, `storybook-grader` and `storybook-judges`; `init` is a
    pipeline folder to start from, or None for random weights.
    """

    models: Path
    cache: Path
    init: Path | None
    minutes: float | None
    device: str
    seed: int
    workers: int
    quick: bool
    fast: bool = False

    @property
    def out(self) -> Path:
        """The pipeline folder that the stages make."""
        return self.models / "storybook"

    @property
    def judges(self) -> Path:
        """Where the judges go."""
        return self.models / "storybook-judges"

    def time_for(self, default: float) -> float:
        """Return how many minutes the stage may take: a toy run takes a second."""
        return 1 / 60 if self.quick else self.minutes if self.minutes is not None else default

    def pick(self, full: int, toy: int) -> int:
        """Return the size for a full or a toy run."""
        return toy if self.quick else full


def render_data(options: Options) -> None:
    """Render the cache of pictures, masks and captions."""
    shards = {"studio": options.pick(8, 1), "outdoors": options.pick(32, 1)}
    size = options.pick(5000, 40)
    render_cache(options.cache / "data", shards=shards, shard_size=size, workers=options.workers)


def train_clip_pair(options: Options) -> None:
    """Train the CLIP pair whose text tower conditions the U-Net, and hand that tower to the pipeline.

    A U-Net that was trained with another tower is fitted to the new one, and goes on from there.
    """
    pipeline, settings = _open(options), replace(_clip_settings(options), anchor=30.0, text_questions=0.0)
    tokenizer = train_tokenizer(sample_captions(options.pick(24_000, 400)))
    clip, record = train_clip(tokenizer, settings)
    save_clip(options.models / "storybook-clip", clip, tokenizer)
    tower = text_tower(clip)
    facts = {**asdict(settings), **asdict(record)}
    if options.init is not None:
        before = TextEncoder(Tower(pipeline.tokenizer, pipeline.text_encoder))
        after = TextEncoder(Tower(tokenizer, tower))
        captions = sample_captions(options.pick(3000, 100), first=options.pick(1_000_000, 1000))
        facts["old tower explained"] = refit_cross_attention(pipeline.unet, before, after, captions)
    _save(options, pipeline, tokenizer=tokenizer, text_encoder=tower)
    _record(options, "clip", facts)


def sharpen_phrases(options: Options) -> None:
    """Let the text tower, in the pipeline and in its pair, tell a caption's later things as clearly as the first."""
    pipeline, folder = _open(options), options.models / "storybook-clip"
    settings = PhraseSettings(
        minutes=options.time_for(5),
        steps=options.pick(5000, 2),
        captions=options.pick(40_000, 200),
        batch=options.pick(96, 8),
        seed=options.seed,
    )
    tower, record = train_phrases(pipeline.text_encoder, pipeline.tokenizer, settings)
    clip, tokenizer = load_clip(folder)
    clip.text_model.load_state_dict(tower.state_dict())
    save_clip(folder, round_to_half(clip), tokenizer)
    _save(options, pipeline, text_encoder=text_tower(clip))
    _record(options, "phrases", {**asdict(settings), **asdict(record)})


def train_grader(options: Options) -> None:
    """Train the CLIP pair that only grades: another seed, other pictures, and every combination among them."""
    settings = _clip_settings(options)
    settings = replace(settings, twins=settings.batch // 4, seed=options.seed + 1, split="judge")
    tokenizer = train_tokenizer(sample_captions(options.pick(24_000, 400), split="judge"))
    clip, record = train_clip(tokenizer, settings)
    save_clip(options.models / "storybook-grader", clip, tokenizer)
    _record(options, "grader", {**asdict(settings), **asdict(record)})


def _clip_settings(options: Options) -> ClipSettings:
    """Ends by steps, so that the seed says all, unless the time is up before."""
    minutes = options.time_for(60)
    return ClipSettings(
        minutes=0.8 * minutes,
        text_minutes=0.2 * minutes,
        steps=options.pick(500, 2),
        text_steps=options.pick(1000, 2),
        pictures=options.pick(40_000, 40),
        captions=options.pick(40_000, 200),
        batch=options.pick(256, 16),
        seed=options.seed,
        groups=options.pick(10, 1),
        candidates=options.pick(100, 8),
    )


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
        batch=options.pick(256 if options.device == "cuda" else 32, 2),
        studio_only_share=0.0 if options.init else 0.12,
        seed=options.seed,
        device=options.device,
        fast=options.fast,
        checkpoint_seconds=30 if options.device == "cuda" else 240,
    )
    folders = Folders(data=options.cache / "data", work=options.cache / "unet", out=options.out)
    run_unet_training(options.out, folders, settings, ranks=options.workers)
    record = json.loads((folders.work / "record.json").read_text())
    _record(options, "unet", {"started from": str(options.init or "random weights"), **record})


def train_judges(options: Options) -> None:
    """Train both judges, half of the time each, going on from their checkpoints."""
    autoencoder = load_pipeline(options.out).vae
    settings = JudgeSettings(
        minutes=options.time_for(24) / 2,
        batch=options.pick(96, 8),
        groups=options.pick(3, 1),
        seed=options.seed,
        fast=options.fast,
    )
    shards, work = options.cache / "judge-data", options.cache / "judges"
    wanted = JudgeShards(
        attributes=options.pick(20, 1),
        identity=options.pick(20, 1),
        pictures=options.pick(5000, 16),
        groups=options.pick(125, 2),
    )
    render_judge_shards(shards, wanted, workers=options.workers)
    work.mkdir(parents=True, exist_ok=True)
    train_identity_judge(autoencoder, shards, settings, checkpoint=work / "identity.pt").save(options.judges)
    train_attribute_judge(autoencoder, shards, settings, checkpoint=work / "attributes.pt").save(options.judges)
    _record(options, "judge", {**asdict(settings), **asdict(wanted)})


def measure_covariance(options: Options) -> None:
    """Measure how the text tower's encodings are spread, which is what concepts are told apart by."""
    pipeline, count = load_pipeline(options.out), options.pick(20_000, 400)
    captions = sample_captions(count, first=1_000_000)
    compute_covariance(TextEncoder(Tower(pipeline.tokenizer, pipeline.text_encoder)), captions).save(
        options.out / "covariance.safetensors"
    )
    _record(options, "covariance", {"captions": count})


def draw_contact_sheet(options: Options) -> None:
    """Draw the fixed prompts into `sheet.png` beside the weights."""
    how = Drawing(options.pick(DEFAULT_STEPS, 2), GUIDANCE, first_seed=3)
    write_grid(draw(load_model(options.out), PROMPTS[: options.pick(len(PROMPTS), 2)], how), options.out / "sheet.png")


def write_model_card(options: Options) -> None:
    """Score model and judges, and write the model card and `lockstep.json`."""
    base, how = load_model(options.out), Drawing(options.pick(25, 2), GUIDANCE)
    default = replace(how, steps=options.pick(DEFAULT_STEPS, 2))
    asked = held_out(options.pick(200, 4), first=_FIRST_PROMPT)
    pictures = draw(base, [prompted.prompt for prompted in asked], how)
    groups, candidates = options.pick(60, 1), options.pick(10, 2)
    scores = ModelScores(
        following=prompt_following(AttributeJudge.load(options.judges), pictures, asked),
        identity=identity_accuracy(IdentityJudge.load(options.judges), groups=groups, candidates=candidates),
        seconds=seconds_per_picture(base, default, pictures=options.pick(3, 1)),
        steps=how.steps,
        default_steps=default.steps,
        guidance=GUIDANCE,
    )
    write_card(options.out, scores, _records(options))
    write_facts(options.out, base, default_steps=DEFAULT_STEPS, default_guidance=GUIDANCE)


def distil_students(options: Options) -> None:
    """Distil the model's student, a free one and those that show what each part is for, as far as the time allows."""
    until = math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
    place = Workplace(options.out, options.cache / "students", options.device, options.fast, options.workers, until)
    make_bundled_student(place, options.models / "storybook-student", quick=options.quick, seed=options.seed)


STAGES: Final = {
    "data": render_data,
    "clip": train_clip_pair,
    "phrases": sharpen_phrases,
    "grader": train_grader,
    "autoencoder": train_autoencoder,
    "unet": train_unet,
    "judge": train_judges,
    "covariance": measure_covariance,
    "sheet": draw_contact_sheet,
    "card": write_model_card,
    "student": distil_students,
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
