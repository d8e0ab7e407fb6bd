"""What the traffic of checks.py asks: token ids, with images where the model takes them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Four patches of 28 pixels each way, so 16 tokens with Qwen2.5-VL.
IMAGE_PIXELS = 112
# Every so-manyth request has an image.
IMAGE_EVERY = 2
# Prompts that begin alike, where prefixes are cached, and how much longer each beginning is than the
# one before. vLLM 0.33 has blocks of 544 (Qwen3-Next), 528 (Granite 4.0) and 1,920 tokens
# (Kimi-Linear): of each some beginnings hold a whole one, and some pass an end.
BEGINNINGS = 8
BEGINNING_TOKENS = 1800
BEGINNING_STEP = 60
# Beyond any request's index.
BEGINNING_INDEX = 1000


@dataclass(frozen=True)
class ImageTokens:
    """The ids around an image in a prompt, and the one that its processor replaces."""

    begin: int
    image: int
    end: int


def image_tokens(model: Path) -> ImageTokens | None:
    """Of a model's folder; ``None``: it takes no images."""
    config = json.loads((model / "config.json").read_text())
    if "vision_config" not in config:
        return None
    names = ("vision_start_token_id", "image_token_id", "vision_end_token_id")
    return ImageTokens(*(config[name] for name in names))


def token_ids(index: int, length: int) -> list[int]:
    """Of the prompt with this index, so long: the same each time."""
    return [(index * 104729 + place * 31) % 30000 + 100 for place in range(length)]


def prompt(index: int, images: ImageTokens | None = None) -> dict[str, Any]:
    """Of the request with this index; the same each time, and no other's."""
    ids = token_ids(index, 8 + index % 90)
    if images is None or index % IMAGE_EVERY:
        return {"prompt_token_ids": ids}
    return {
        "prompt_token_ids": [images.begin, images.image, images.end, *ids],
        "multi_modal_data": {"image": image(index)},
    }


def prompt_of_prefix(index: int) -> dict[str, Any]:
    """As ``prompt``, after a beginning that every eighth request has as well."""
    beginning = index % BEGINNINGS
    ids = token_ids(BEGINNING_INDEX + beginning, BEGINNING_TOKENS + BEGINNING_STEP * beginning)
    return {"prompt_token_ids": ids + token_ids(index, 8 + index % 90)}


def image(index: int) -> Any:
    """Noise, so that no two images are embedded alike."""
    from PIL import Image

    size = (IMAGE_PIXELS, IMAGE_PIXELS)
    return Image.frombytes("RGB", size, random.Random(index).randbytes(3 * size[0] * size[1]))
