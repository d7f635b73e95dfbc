"""Draws example inputs with numpy alone: lines of text, a face, a hummed tone, a program. The same every time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from slotwise.edges.zoo.catalogue import Sample
from slotwise.facts.value import value

Array = NDArray[np.generic]
Floats = NDArray[np.float64]
SAMPLE_RATE_HZ = 16_000
TEXT = "SLOTWISE"
# Letters of 5 x 7 points, one row of points to a number, the highest bit to the left.
GLYPHS = {
    "S": (0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110),
    "L": (0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111),
    "O": (0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110),
    "T": (0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100),
    "W": (0b10001, 0b10001, 0b10001, 0b10101, 0b10101, 0b11011, 0b10001),
    "I": (0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110),
    "E": (0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111),
}


@value
class Oval:
    """A part of a face; from -1 to 1 in both directions, `is_paired` when there is another on the other side."""

    x: float = 0
    y: float
    width: float
    height: float
    colour: tuple[float, float, float]
    is_paired: bool = False


FACE = (
    Oval(y=0.05, width=0.42, height=0.55, colour=(205, 165, 140)),
    Oval(y=-0.45, width=0.42, height=0.22, colour=(50, 35, 30)),  # hair
    Oval(x=0.17, y=-0.1, width=0.08, height=0.04, colour=(250, 250, 250), is_paired=True),
    Oval(x=0.17, y=-0.1, width=0.035, height=0.04, colour=(30, 25, 25), is_paired=True),
    Oval(x=0.17, y=-0.2, width=0.11, height=0.02, colour=(60, 40, 35), is_paired=True),  # brows
    Oval(y=0.1, width=0.04, height=0.12, colour=(180, 135, 110)),
    Oval(y=0.35, width=0.16, height=0.045, colour=(170, 70, 75)),
)
TOKENS = (101, 1996, 8241, 6998, 2006, 2051, 102)
"""Of an uncased English vocabulary: [CLS] the server answers on time [SEP]."""
BYTE_PADDING = 256
PROGRAM = b'''import json
import sys
from pathlib import Path


def count_words(path: Path) -> dict[str, int]:
    """How often each word of a file occurs."""
    counts: dict[str, int] = {}
    for line in path.read_text().splitlines():
        for word in line.lower().split():
            counts[word] = counts.get(word, 0) + 1
    return counts


if __name__ == "__main__":
    print(json.dumps(count_words(Path(sys.argv[1])), indent=2))
'''


def make(sample: Sample, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An example of that shape."""
    return np.ascontiguousarray(np.broadcast_to(_MAKERS[sample](shape), shape).astype(dtype))


def _line(shape: tuple[int, ...]) -> Floats:
    height, width = shape[-2:]
    return _picture(height, width, lines=1) / 127.5 - 1


def _page(shape: tuple[int, ...]) -> Floats:
    return _page_bytes(shape) / 127.5 - 1


def _page_bytes(shape: tuple[int, ...]) -> Floats:
    height, width = shape[-2:]
    return _picture(height, width, lines=5)


def _picture(height: int, width: int, lines: int) -> Floats:
    """Dark text on light ground, in lines of equal height with a margin around each."""
    # Six columns a letter: its five, and a blank one.
    letters = [[[row << 1 >> (5 - column) & 1 for column in range(6)] for row in GLYPHS[letter]] for letter in TEXT]
    text = np.concatenate([np.array(letter) for letter in letters], axis=1)
    scale = max(1, min(height // lines // 9, width // (text.shape[1] + 4)))
    drawn = np.kron(text, np.ones((scale, scale)))
    picture = np.full((height, width), 235.0)
    for line in range(lines):
        top = line * height // lines + (height // lines - drawn.shape[0]) // 2
        picture[top : top + drawn.shape[0], 2 * scale : 2 * scale + drawn.shape[1]] -= 200 * drawn
    return picture


def _face_bytes(shape: tuple[int, ...]) -> Floats:
    """A pale oval with eyes, brows, nose and mouth before a dark ground, in three colours."""
    height, width = shape[-2:]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    face = np.full((3, height, width), 60.0)
    for oval in FACE:
        for side in (-1, 1) if oval.is_paired else (1,):
            inside = ((x - side * oval.x) / oval.width) ** 2 + ((y - oval.y) / oval.height) ** 2 < 1
            face[:, inside] = np.array(oval.colour)[:, None]
    return face


def _source_code(shape: tuple[int, ...]) -> Floats:
    half = shape[-1] // 2
    first, last = list(PROGRAM[:half]), list(PROGRAM[-half:])
    padding = [BYTE_PADDING]
    return np.array(first + padding * (half - len(first)) + padding * (half - len(last)) + last, dtype=float)


def _tokens(shape: tuple[int, ...]) -> Floats:
    return np.array(TOKENS + (0,) * (shape[-1] - len(TOKENS)), dtype=float)


def _mask(shape: tuple[int, ...]) -> Floats:
    return (_tokens(shape) > 0).astype(float)


def _zeros(shape: tuple[int, ...]) -> Floats:
    return np.zeros(shape)


def _voice(shape: tuple[int, ...]) -> Floats:
    return _hum(max(shape)).reshape(shape)


def _hum(samples: int) -> Floats:
    """A tone around 220 Hz with overtones and vibrato, broken off three times a second."""
    seconds = np.arange(samples) / SAMPLE_RATE_HZ
    phase = 2 * np.pi * (220 * seconds + 1.5 * np.sin(2 * np.pi * 5 * seconds) / 5)
    tone = sum((np.sin(order * phase) / order for order in range(1, 8)), start=np.zeros(samples))
    return 0.3 * tone * np.clip(1.5 + np.sin(2 * np.pi * 3 * seconds + 1), 0, 1)


def _spectrum(shape: tuple[int, ...]) -> Floats:
    frames, bands = shape[-2:]
    size = 2 * (bands - 1)
    hop = size // 2
    sound = _hum(frames * hop + size)
    windows = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop][:frames]
    power = np.abs(np.fft.rfft(windows * np.hamming(size))) ** 2
    return np.log10(power + 1e-6) / 2


def _normal(shape: tuple[int, ...]) -> Floats:
    return np.random.default_rng(seed=1).normal(size=shape)


_MAKERS: dict[Sample, Callable[[tuple[int, ...]], Floats]] = {
    Sample.LINE: _line,
    Sample.PAGE: _page,
    Sample.PAGE_BYTES: _page_bytes,
    Sample.FACE_BYTES: _face_bytes,
    Sample.SOURCE_CODE: _source_code,
    Sample.TOKENS: _tokens,
    Sample.MASK: _mask,
    Sample.ZEROS: _zeros,
    Sample.VOICE: _voice,
    Sample.SPECTRUM: _spectrum,
    Sample.NORMAL: _normal,
}
