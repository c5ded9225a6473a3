"""Short words drawn in clear print, from prompts such as ``the word "CAT"``: a world for rewards that read.

Words are set by PIL in the DejaVu faces that come with matplotlib. Pictures are float32 arrays ``[batch, 3, height,
width]`` in [-1, 1]; lengths are in pixels.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelpolicy.errors import PromptError, SizeError

HEIGHT, WIDTH = 32, 96
MOST_LETTERS = 12
WORDS = (
    "CAT", "DOG", "SUN", "MOON", "STAR", "FISH", "BIRD", "TREE", "LEAF", "ROCK", "WIND", "RAIN", "SNOW", "FIRE", "LAMP",
    "BOOK", "DOOR", "SHIP", "ROAD", "HAND", "apple", "river", "stone", "green", "light", "music", "paper", "house",
    "cloud", "tiger", "bread", "pixel", "policy", "reward", "sample", "noise", "Hello", "World", "Paris", "April",
    "Queen", "robot", "42", "2024",
)  # fmt: skip
FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif",
    "DejaVuSerif-Bold", "DejaVuSerif-Italic",
)  # fmt: skip
SIZES = (0.42, 0.70)  # of the letters, as a share of the picture's height
SMALLEST = 8  # pixels of type; a longer word is refused
MARGIN = 2
LEAST_CONTRAST = 0.4  # between the brightness, from 0 to 1, of ink and ground
_BRIGHTNESS = np.array([0.299, 0.587, 0.114])
_PROMPT = re.compile(rf'the word "([A-Za-z0-9]{{1,{MOST_LETTERS}}})"')


def prompt(word: str) -> str:
    """The prompt that asks for a word. Raises `PromptError` as `parse` does."""
    text = f'the word "{word}"'
    parse(text)
    return text


@functools.cache
def parse(text: str) -> str:
    """The word that a prompt asks for. Raises `PromptError` where it is not of the form ``the word "CAT"``."""
    found = _PROMPT.fullmatch(text)
    if not found:
        raise PromptError(
            f"the prompt {text!r} asks for no word that can be read. Write 'the word \"CAT\"': one word in double "
            f"quotes, of 1 to {MOST_LETTERS} letters A-Z, a-z and digits"
        )
    return found[1]


def prompts() -> tuple[str, ...]:
    """A prompt for each of `WORDS`, in a fixed order."""
    return tuple(prompt(word) for word in WORDS)


def draw_prompts(count: int, rng: np.random.Generator) -> list[str]:
    """Random prompts, each word with the same chance."""
    return [str(text) for text in rng.choice(prompts(), count)]


def draw(texts: list[str], rng: np.random.Generator, *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Clean pictures ``[batch, 3, height, width]`` in [-1, 1] of what prompts ask for.

    Face, size, place, ink and ground follow from ``rng``. Raises `PromptError` for another prompt, and `SizeError`
    where a word does not fit.
    """
    pictures = np.empty((len(texts), 3, height, width), dtype=np.float32)
    for i, text in enumerate(texts):
        word, face = parse(text), str(rng.choice(FACES))
        font, (left, top, right, bottom) = _fitting(word, face, rng.uniform(*SIZES) * height, height, width)
        ground, ink = _two_colours(rng)
        x = rng.integers(MARGIN, width - MARGIN - (right - left), endpoint=True)
        y = rng.integers(MARGIN, height - MARGIN - (bottom - top), endpoint=True)
        pictures[i] = typeset(word, font, (int(x) - left, int(y) - top), ink, ground, height=height, width=width)
    return pictures


def typeset(word: str, font, place: tuple[int, int], ink, ground, *, height: int = HEIGHT, width: int = WIDTH):
    """One picture ``[3, height, width]`` in [-1, 1] of any text: ``ink`` and ``ground`` are RGB in [0, 1].

    ``font`` is a `face`; ``place`` is where its text begins, left and top.
    """
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text(place, word, font=font, fill=255)
    cover = np.asarray(mask, dtype=np.float32) / 255
    ink, ground = (np.asarray(colour, dtype=np.float32)[:, None, None] for colour in (ink, ground))
    return (ground + cover * (ink - ground)) * 2 - 1


@functools.cache
def face(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of `FACES` in a size of whole pixels."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def _fitting(word: str, name: str, size: float, height: int, width: int):
    """A face small enough for the word to fit, and the word's box (left, top, right, bottom) in it."""
    for pixels in range(max(round(size), SMALLEST), SMALLEST - 1, -1):
        font = face(name, pixels)
        box = tuple(int(edge) for edge in font.getbbox(word))
        if box[2] - box[0] <= width - 2 * MARGIN and box[3] - box[1] <= height - 2 * MARGIN:
            return font, box
    raise SizeError(
        f"the word {word!r} does not fit into a picture of {height}x{width} at {SMALLEST} pixels of type; "
        f"ask for a larger picture or a shorter word"
    )


def _two_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """RGB in [0, 1] of ground and ink, far enough apart in brightness to be read."""
    while True:
        ground, ink = rng.random(3), rng.random(3)
        if abs((ink - ground) @ _BRIGHTNESS) >= LEAST_CONTRAST:
            return ground, ink
