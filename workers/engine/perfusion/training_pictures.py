"""The pictures of one training, encoded once: what it draws its batches from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from workers.engine.base_model import BaseModel
from workers.engine.errors import PicturesInvalid
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.masks import attention_masks
from workers.engine.perfusion.segmenter import Segmenter
from workers.engine.pictures import to_pictures, to_pixels

MAX_PICTURES = 32


@dataclass(frozen=True)
class TrainingPictures:
    """Latents (2n, C, H, W) of n pictures followed by their mirror images, and masks (2n, 1, H, W)."""

    latents: Tensor
    masks: Tensor

    @property
    def count(self) -> int:
        """n: the number of pictures, mirror images not counted."""
        return len(self.latents) // 2


def prepare_pictures(
    base: BaseModel,
    pictures: Sequence[Image.Image],
    superclass: str,
    config: PerfusionConfig,
    *,
    seed: int,
    masks: Tensor | None = None,
    segmenter: Segmenter | None = None,
) -> TrainingPictures:
    """Encode pictures and their mirror images once.

    ``masks`` (n, 1, H, W) replace those of the segmenter, and these the model's own attention masks.

    Mirrored before encoding: latents of a mirror image are not the mirrored latents. Raises PicturesInvalid.
    """
    if not 1 <= len(pictures) <= MAX_PICTURES:
        raise PicturesInvalid(f"{len(pictures)} pictures; from 1 to {MAX_PICTURES} can be learned from")
    pixels = to_pixels(pictures, base.native_size).to(base.device)  # (n, 3, height, width)
    latents = torch.cat([base.autoencoder.encode(pixels), base.autoencoder.encode(pixels.flip(-1))])
    if masks is None and segmenter is not None and config.masked:
        squares, texts = to_pictures(pixels), [template.format(superclass) for template in config.templates]
        masks = segmenter.masks(squares, texts, (latents.shape[2], latents.shape[3]))
    if masks is not None:
        if masks.shape != (len(pictures), 1, *latents.shape[2:]):
            raise PicturesInvalid(f"masks have shape {tuple(masks.shape)}; one (1, H, W) per picture is due")
        return TrainingPictures(latents, torch.cat([masks, masks.flip(-1)]).to(base.device))
    if config.masked:
        found = attention_masks(base, latents, superclass, template=config.templates[0], seed=seed)
        return TrainingPictures(latents, found)
    return TrainingPictures(latents, torch.ones_like(latents[:, :1]))
