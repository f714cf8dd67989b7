"""Where in a training picture the thing is: soft masks from a CLIPSeg folder, for models that name one.

Source: Lueddecke & Ecker 2022, "Image Segmentation Using Text and Image Prompts" (CLIPSeg), used as public
reimplementations of the Perfusion paper use it for the zero-shot masks of its p. 9: the mean over the training's
templates, filled with the superclass, of the sigmoid of what CLIPSeg answers, divided by its own maximum; no threshold.

Dimensions:  n pictures, T templates, S x S pixels of CLIPSeg, H x W latents
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from transformers import BatchEncoding, CLIPSegForImageSegmentation, CLIPTokenizer, ViTImageProcessorPil

from workers.engine.errors import ModelUnreadable
from workers.engine.hub import CLIP_FILES, local_folder


class Segmenter:
    """A CLIPSeg folder that transformers reads, or one of the hub."""

    def __init__(
        self, model: CLIPSegForImageSegmentation, tokenizer: CLIPTokenizer, processor: ViTImageProcessorPil
    ) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._processor = processor

    @classmethod
    def load(cls, path_or_hub_id: str, *, device: torch.device) -> Self:
        """Open it in float32; raises ModelUnreadable or, for a hub that does not answer, ModelUnavailable."""
        try:
            folder = local_folder(path_or_hub_id, CLIP_FILES)
            model, found = CLIPSegForImageSegmentation.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            if found["missing_keys"]:  # they would be random, as in a folder of another kind of model
                raise OSError(f"weights are missing, {min(found['missing_keys'])} among them")
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            processor = ViTImageProcessorPil.from_pretrained(folder)
        except torch.OutOfMemoryError:  # a RuntimeError, and not the folder's fault
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelUnreadable(f"no CLIPSeg to make masks with in {path_or_hub_id!r}: {error}") from error
        return cls(model.to(device), tokenizer, processor)

    @torch.no_grad()
    def masks(self, pictures: Sequence[Image.Image], texts: Sequence[str], size: tuple[int, int]) -> Tensor:
        """Return where square pictures show what the T texts say, as (n, 1, H, W) for a ``size`` of (H, W)."""
        pixels = self._processor(images=list(pictures), return_tensors="pt").pixel_values  # (n, 3, S, S)
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(self._model.device)
        found = [self._likelihood(picture.to(self._model.device), tokens) for picture in pixels]
        masks = torch.stack(found)[:, None]  # (n, 1, S, S)
        masks = masks / masks.amax((1, 2, 3), keepdim=True)
        return functional.interpolate(masks, size=size, mode="bilinear", align_corners=False)

    def _likelihood(self, pixels: Tensor, tokens: BatchEncoding) -> Tensor:
        """Return (S, S), the mean over the texts for one picture (3, S, S)."""
        each = pixels.expand(len(tokens.input_ids), -1, -1, -1)  # (T, 3, S, S)
        logits: Tensor = self._model(**tokens, pixel_values=each).logits  # (T, S, S)
        return logits.sigmoid().mean(0)
