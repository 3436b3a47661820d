"""Pictures that are no chest X-ray, drawn: pages, charts, screenshots, hands, noise, textures.

They try a guard (core.serving.guard.negatives) where no real picture of the kind comes with a
package. Every drawing is a function of a numpy Generator alone; grey ones are uint8 (height,
width), those in colour uint8 (height, width, 3).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, zoom

Draw = Callable[[np.random.Generator], np.ndarray]

SIDE_PX = 448
_TEXT = (
    "the a of to report patient is in and clear no heart lung size normal image study left right "
    "dated seen with for was on at by findings impression history stable table figure page value "
    "method result section number total mean rate group year data model"
)
_WORDS = _TEXT.split()
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#17becf", "#bcbd22")

# ------------------------------------------------------------------------------ documents


def draw_page(rng: np.random.Generator) -> np.ndarray:
    """A page of printed text in lines and paragraphs, at times with a headline or in columns."""
    width, height = 640, int(rng.integers(760, 920))
    page = Image.new("L", (width, height), int(rng.integers(225, 256)))
    draw = ImageDraw.Draw(page)
    size = int(rng.integers(11, 22))
    margin, columns = int(rng.integers(30, 80)), int(rng.integers(1, 3))
    y = margin
    if rng.random() < 0.7:
        draw.text((margin, y), _words(rng, 4).title(), fill=0, font=_font(2 * size))
        y += 3 * size
    column = (width - 2 * margin) // columns
    for k in range(columns):
        _write_lines(draw, rng, (margin + k * column, y, column - 12, height - margin), size)
    return np.asarray(page)


def draw_form(rng: np.random.Generator) -> np.ndarray:
    """A table or form: ruled lines with words and numbers in the cells."""
    sheet = Image.new("L", (700, 560), 255)
    draw = ImageDraw.Draw(sheet)
    rows, columns = int(rng.integers(6, 18)), int(rng.integers(2, 7))
    for r in range(rows + 1):
        y = 30 + r * 500 // rows
        draw.line((30, y, 670, y), fill=90)
        for c in range(columns):
            word = _words(rng, 1) if c == 0 else f"{rng.normal(50, 30):.1f}"
            draw.text((36 + c * 640 // columns, y + 4), word, fill=0, font=_font(13))
    for c in range(columns + 1):
        draw.line((30 + c * 640 // columns, 30, 30 + c * 640 // columns, 530), fill=90)
    return np.asarray(sheet)


def draw_chart(rng: np.random.Generator) -> np.ndarray:
    """A chart in colour: bars, lines, a cloud of points or a pie, with axes and a title."""
    chart = Image.new("RGB", (640, 480), "white")
    draw = ImageDraw.Draw(chart)
    draw.text((200, 12), _words(rng, 3).title(), fill="black", font=_font(20))
    kind = int(rng.integers(4))
    if kind == 3:
        start = 0.0
        for k, part in enumerate(rng.dirichlet(np.ones(6)) * 360):
            draw.pieslice((170, 70, 510, 410), start, start + part, fill=_COLOURS[k])
            start += part
        return np.asarray(chart)
    draw.line((70, 50, 70, 420, 600, 420), fill="black", width=2)
    for k in range(6):
        draw.line((70, 420 - 62 * k, 600, 420 - 62 * k), fill="#dddddd")
        draw.text((30, 412 - 62 * k), f"{20 * k}", fill="black", font=_font(13))
    values = rng.random((3, 10))
    for k in range(10):
        x = 95 + 50 * k
        if kind == 0:
            draw.rectangle((x, 420 - 340 * values[0, k], x + 34, 420), fill=_COLOURS[k % 4])
        for row, colour in zip(values, _COLOURS, strict=False):
            y = 420 - 340 * row[k]
            if kind == 1 and k:
                draw.line((x - 50, 420 - 340 * row[k - 1], x, y), fill=colour, width=3)
            if kind == 2:
                draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour)
    return np.asarray(chart)


def draw_screenshot(rng: np.random.Generator) -> np.ndarray:
    """A window of a program, light or dark: bar, side bar, cards, buttons and text."""
    dark = rng.random() < 0.5
    back, card, ink = ("#0e1117", "#262730", "white") if dark else ("white", "#f0f2f6", "#31333f")
    window = Image.new("RGB", (800, 500), back)
    draw = ImageDraw.Draw(window)
    side = int(rng.integers(120, 220))
    draw.rectangle((0, 0, 800, 34), fill=card)
    draw.rectangle((0, 34, side, 500), fill=card)
    for y in range(60, 460, int(rng.integers(24, 44))):
        draw.text((14, y), _words(rng, 2), fill=ink, font=_font(14))
    for _ in range(int(rng.integers(3, 8))):
        x, y = int(rng.integers(side + 10, 640)), int(rng.integers(44, 400))
        draw.rounded_rectangle((x, y, x + 140, y + 80), 8, fill=card, outline=ink)
        draw.text((x + 10, y + 10), _words(rng, 2), fill=ink, font=_font(14))
        draw.text((x + 10, y + 36), f"{rng.normal(50, 20):.1f}", fill=ink, font=_font(28))
    draw.rounded_rectangle((side + 20, 450, side + 150, 482), 8, fill=_COLOURS[rng.integers(8)])
    return np.asarray(window)


def _write_lines(draw, rng, box: tuple[int, int, int, int], size: int) -> None:
    x, y, width, bottom = box
    while y < bottom:
        share = 1.0 if rng.random() < 0.85 else rng.random()
        line = _words(rng, 3)
        while draw.textlength(line, font=_font(size)) < share * width - 5 * size:
            line += " " + _words(rng, 1)
        draw.text((x, y), line, fill=int(rng.integers(0, 50)), font=_font(size))
        y += int(1.35 * size) + (size if share < 1 else 0)


def _words(rng: np.random.Generator, n: int) -> str:
    return " ".join(_WORDS[k] for k in rng.integers(0, len(_WORDS), n))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


# ------------------------------------------------------------------------------ hands


def draw_hand(rng: np.random.Generator) -> np.ndarray:
    """A drawn X-ray of a hand: four fingers and a thumb of bones in soft tissue, wrist, forearm."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32) / SIDE_PX
    size, lean = rng.uniform(0.85, 1.1), np.deg2rad(rng.normal(0, 8))
    mirror = rng.choice([-1, 1])
    u = ((x - 0.5) * np.cos(lean) + (y - 0.5) * np.sin(lean)) / size * mirror
    v = ((y - 0.5) * np.cos(lean) - (x - 0.5) * np.sin(lean)) / size
    tissue, bone = np.zeros_like(u), np.zeros_like(u)
    tissue = np.maximum(tissue, _capsule(u, v, (0, 0.12), (0, 0.2), 0.15))
    tissue = np.maximum(tissue, _capsule(u, v, (0, 0.25), (0, 0.7), 0.1))
    spread = rng.uniform(0.6, 1.3)
    for number, place in enumerate((-0.12, -0.042, 0.04, 0.115)):
        angle = spread * (place * 1.6 + rng.normal(0, 0.02))
        long = (0.26, 0.31, 0.3, 0.24)[number] * rng.uniform(0.95, 1.05)
        knuckle = np.array([place, 0.03 + 0.015 * abs(number - 1.5)])
        along = np.array([np.sin(angle), -np.cos(angle)])
        _draw_ray(u, v, bone, tissue, knuckle, long * along, 0.032)
        _long_bone(u, v, bone, (0.55 * place, 0.2), knuckle + np.array([0, 0.02]), 0.02)
    thumb = spread * rng.uniform(-1.1, -0.8)
    base = np.array([-0.15, 0.13])
    _long_bone(u, v, bone, (-0.07, 0.21), base, 0.022)
    along = np.array([np.sin(thumb), -np.cos(thumb)])
    _draw_ray(u, v, bone, tissue, base, 0.2 * along, 0.036)
    for px in (-0.06, -0.02, 0.02, 0.055):
        for py in (0.215, 0.25):
            bone[:] = np.maximum(bone, 0.8 * _capsule(u, v, (px, py), (px + 0.006, py), 0.019))
    _long_bone(u, v, bone, (-0.035, 0.3), (-0.03, 0.8), 0.04)
    _long_bone(u, v, bone, (0.05, 0.3), (0.05, 0.8), 0.026)
    value = 0.03 + rng.uniform(0.25, 0.4) * tissue + rng.uniform(0.4, 0.55) * bone
    value = gaussian_filter(value, rng.uniform(0.8, 2.0)) + rng.normal(0, 0.012, value.shape)
    return (np.clip(value, 0, 1) * 255).astype(np.uint8)


def _draw_ray(u, v, bone, tissue, start, reach, radius: float) -> None:
    """A finger from the knuckle on: soft tissue and three phalanges, each thinner."""
    root = start + np.array([0, 0.06])
    tissue[:] = np.maximum(tissue, _capsule(u, v, root, start + reach, radius))
    at = 0.0
    for part, share in enumerate((0.46, 0.3, 0.24)):
        first, last = start + reach * (at + 0.03), start + reach * (at + share - 0.02)
        _long_bone(u, v, bone, first, last, 0.42 * radius * (1 - 0.12 * part))
        at += share


def _long_bone(u, v, bone: np.ndarray, start, end, radius: float) -> None:
    """A shaft with wider ends and a darker marrow, added where it is denser than what is there."""
    shaft = _capsule(u, v, start, end, radius) - 0.35 * _capsule(u, v, start, end, 0.5 * radius)
    heads = np.maximum(*(_capsule(u, v, end_, end_, 1.35 * radius) for end_ in (start, end)))
    bone[:] = np.maximum(bone, np.maximum(shaft, 0.75 * heads))


def _capsule(u, v, start, end, radius: float) -> np.ndarray:
    """Thickness (0 to 1) of a rod with round ends between two points, as a projection shows it."""
    (ax, ay), (bx, by) = start, end
    dx, dy = bx - ax, by - ay
    t = np.clip(((u - ax) * dx + (v - ay) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    away = (u - ax - t * dx) ** 2 + (v - ay - t * dy) ** 2
    return np.sqrt(np.clip(1 - away / radius**2, 0, 1))


# ------------------------------------------------------------------------------ noise and blank


def draw_noise(rng: np.random.Generator) -> np.ndarray:
    """One of seven noises: even, Gaussian, salt and pepper, 1/f, blurred, striped, blocks."""
    kind, shape = int(rng.integers(7)), (SIDE_PX, SIDE_PX)
    if kind == 0:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == 1:
        return _grey(rng.normal(rng.uniform(80, 170), rng.uniform(15, 60), shape))
    if kind == 2:
        return np.where(rng.random(shape) < rng.uniform(0.1, 0.5), 255, 0).astype(np.uint8)
    if kind == 3:
        away = np.hypot(*np.meshgrid(*(np.fft.fftfreq(SIDE_PX),) * 2)) + 1 / SIDE_PX
        wave = np.fft.fft2(rng.normal(size=shape)) / away ** rng.uniform(0.8, 1.8)
        return _stretch(np.fft.ifft2(wave).real)
    if kind == 4:
        return _stretch(gaussian_filter(rng.normal(size=shape), rng.uniform(2, 30)))
    if kind == 5:
        return _grey(np.broadcast_to(rng.normal(128, 60, (SIDE_PX, 1)), shape).copy())
    cells = int(rng.integers(4, 40))
    return _stretch(zoom(rng.random((cells, cells)), SIDE_PX / cells, order=0))


def draw_blank(rng: np.random.Generator) -> np.ndarray:
    """One grey level, a slope of grey, or a plain field with faint noise."""
    kind = int(rng.integers(4))
    level = float(rng.choice([0, 255, int(rng.integers(256))]))
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    if kind < 2:
        return np.full((SIDE_PX, SIDE_PX), level, np.uint8)
    if kind == 2:
        angle = rng.uniform(0, 2 * np.pi)
        return _stretch(x * np.cos(angle) + y * np.sin(angle))
    return _grey(level + rng.normal(0, 1.5, x.shape))


# ------------------------------------------------------------------------------ textures


def draw_texture(rng: np.random.Generator) -> np.ndarray:
    """One of six patterns: stripes, squares, dots, rings, wood, cells."""
    kind = int(rng.integers(6))
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    angle, rate = rng.uniform(0, np.pi), rng.uniform(4, 30)
    a, b = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == 0:
        value = np.sin(2 * np.pi * rate * a)
    elif kind == 1:
        value = (np.floor(rate * a) + np.floor(rate * b)) % 2
    elif kind == 2:
        value = np.hypot((rate * a) % 1 - 0.5, (rate * b) % 1 - 0.5) < rng.uniform(0.2, 0.45)
    elif kind == 3:
        value = np.sin(2 * np.pi * rate * np.hypot(x - rng.random(), y - rng.random()))
    elif kind == 4:
        bend = gaussian_filter(rng.normal(size=x.shape), 25) * 20
        value = np.sin(2 * np.pi * (rate * a + bend)) + rng.normal(0, 0.2, x.shape)
    else:
        points = rng.random((60, 2))
        value = np.min([np.hypot(x - px, y - py) for px, py in points], axis=0)
    return _stretch(np.asarray(value, dtype=np.float64))


def _stretch(value: np.ndarray) -> np.ndarray:
    return _grey(255 * (value - value.min()) / max(np.ptp(value), 1e-9))


def _grey(value: np.ndarray) -> np.ndarray:
    return np.clip(value, 0, 255).astype(np.uint8)
