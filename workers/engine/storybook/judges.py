"""Judges: small networks that look at a picture and say which individual it shows, or what attributes it has.

They are trained on renders only, never on generated pictures, and on identities of the "judge" split, which shares
no seed with training, demonstration or test pictures. Pictures are uint8 (N, 64, 64, 3) throughout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

Pictures = NDArray[np.uint8]

_BATCH: Final = 64
_WIDTHS: Final = (32, 64, 128)
_BLOCKS: Final = (1, 2, 1)
_CELLS: Final = 64
"""Places of the last maps (8 x 8)."""
_GLANCES: Final = 5


class ResidualBlock(nn.Module):
    """Two normalised convolutions around an identity path."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, H, H) -> the same shape."""
        hidden = self.conv1(functional.relu(self.norm1(x)))
        change: Tensor = self.conv2(functional.relu(self.norm2(hidden)))
        return x + change


class PictureNet(nn.Module):
    """A small residual network from a picture to one vector.

    Its last maps are read by a few glances: each a weighted mean over places that depends on what is there and on
    where it is, so that the left of two things can be told from the right one.
    """

    def __init__(self, outputs: int):
        super().__init__()
        first, last = _WIDTHS[0], _WIDTHS[-1]
        layers: list[nn.Module] = [nn.Conv2d(3, first, 4, stride=2, padding=1)]
        for before, width, blocks in zip((first, *_WIDTHS), _WIDTHS, _BLOCKS, strict=False):
            if before != width:
                layers.append(nn.Conv2d(before, width, 3, stride=2, padding=1))
            layers += [ResidualBlock(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(last), nn.ReLU())
        self.attend = nn.Conv2d(last, _GLANCES, 1)
        self.places = nn.Parameter(torch.zeros(_GLANCES, _CELLS))
        self.head = nn.Linear(_GLANCES * last, outputs)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [-1, 1] -> float32 (B, outputs)."""
        maps = self.layers(pictures.contiguous(memory_format=torch.channels_last))  # (B, W, 8, 8)
        attention = (self.attend(maps).flatten(2) + self.places).softmax(2)  # (B, G, 64)
        seen = torch.einsum("bgp,bwp->bgw", attention, maps.flatten(2))  # (B, G, W)
        vectors: Tensor = self.head(seen.flatten(1)).float()
        return vectors


def to_tensor(pictures: Pictures) -> Tensor:
    """uint8 (N, 64, 64, 3) -> float (N, 3, 64, 64) in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    scaled: Tensor = pixels.float() / 127.5 - 1
    return scaled


@torch.no_grad()
def _outputs(net: PictureNet, pictures: Pictures) -> Tensor:
    return torch.cat([net(to_tensor(pictures[k : k + _BATCH])) for k in range(0, len(pictures), _BATCH)])


class IdentityJudge:
    """Tells individuals apart: pictures of the same identity lie close together in its embedding."""

    FOLDER: Final = "identity"

    def __init__(self, net: PictureNet):
        self.net = net.eval()

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load from a judges folder."""
        config, weights = _read(folder / cls.FOLDER)
        net = PictureNet(config["outputs"])
        net.load_state_dict(weights)
        return cls(net)

    def save(self, folder: Path) -> None:
        """Write into a judges folder."""
        _write(folder / self.FOLDER, self.net, {"outputs": self.net.head.out_features})

    def embed(self, pictures: Pictures) -> Tensor:
        """Return unit rows (N, D)."""
        return functional.normalize(_outputs(self.net, pictures), dim=1)

    def pick(self, pictures: Pictures, candidates: Sequence[Sequence[Pictures]]) -> list[int]:
        """Return, for each picture, the candidate whose renders it is nearest to on average."""
        means = torch.stack([self.embed(np.stack(list(renders))).mean(0) for renders in candidates])  # (C, D)
        nearest = self.embed(pictures) @ functional.normalize(means, dim=1).T  # (N, C)
        return [int(index) for index in nearest.argmax(1)]


class AttributeJudge:
    """Reads class, colour, pattern, accessory, scene, night, style and count off a picture."""

    FOLDER: Final = "attributes"

    def __init__(self, net: PictureNet, attributes: dict[str, tuple[str, ...]]):
        self.net = net.eval()
        self.attributes = attributes

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load from a judges folder."""
        config, weights = _read(folder / cls.FOLDER)
        attributes = {name: tuple(values) for name, values in config["attributes"].items()}
        net = PictureNet(sum(map(len, attributes.values())))
        net.load_state_dict(weights)
        return cls(net, attributes)

    def save(self, folder: Path) -> None:
        """Write into a judges folder."""
        _write(folder / self.FOLDER, self.net, {"attributes": self.attributes})

    def split(self, logits: Tensor) -> dict[str, Tensor]:
        """Cut the network's output (B, sum of values) into one block per attribute."""
        blocks = torch.split_with_sizes(logits, [len(values) for values in self.attributes.values()], dim=1)
        return dict(zip(self.attributes, blocks, strict=True))

    def read(self, pictures: Pictures) -> list[dict[str, str]]:
        """Return each picture's most likely value of every attribute."""
        blocks = self.split(_outputs(self.net, pictures))
        picks = {name: block.argmax(1).tolist() for name, block in blocks.items()}
        return [
            {name: values[picks[name][k]] for name, values in self.attributes.items()} for k in range(len(pictures))
        ]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    return config, weights


def _write(folder: Path, net: PictureNet, config: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = net.state_dict()
    weights = {name: (value.half() if value.is_floating_point() else value) for name, value in state.items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
