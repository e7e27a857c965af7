"""Images that are drawn by a seed: name of a class -> its images."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, rotate, zoom

Images = dict[str, list[Image.Image]]
FONTS = sorted(Path(matplotlib.get_data_path()).glob("fonts/ttf/DejaVu*.ttf"))


def to_image(pixels: np.ndarray) -> Image.Image:
    """An image in colours of values that may leave 0..255, (side, side) or (side, side, 3)."""
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


def glyphs(letters: str = "ABDEGKMRSX", images: int = 100, side: int = 48) -> Images:
    """Letters in the four cuts of a font, turned, scaled, shifted, in other colours and under noise."""
    rng, drawn = np.random.default_rng(1), dict[str, list[Image.Image]]()
    for letter in letters:
        for _ in range(images):
            ground, ink = (tuple(map(int, rng.integers(0, 256, 3))) for _ in range(2))
            image = Image.new("RGB", (side, side), ground)
            font = ImageFont.truetype(str(FONTS[rng.integers(len(FONTS))]), int(rng.integers(side // 3, side)))
            place = tuple(side / 2 + rng.uniform(-side / 8, side / 8, 2))
            ImageDraw.Draw(image).text(place, letter, fill=ink, font=font, anchor="mm")
            turned = np.asarray(image.rotate(rng.uniform(-25, 25), fillcolor=ground), dtype=float)
            drawn.setdefault(letter, []).append(to_image(turned + rng.normal(0, 40, turned.shape)))
    return drawn


def chirps(images: int = 120, side: int = 64) -> Images:
    """Spectrograms of noisy sounds whose pitch rises, falls, stays, jumps or trembles."""
    rng, seconds = np.random.default_rng(2), np.linspace(0, 1, 4096)
    courses: dict[str, Callable[[], np.ndarray]] = {
        "rises": lambda: rng.uniform(100, 500) + rng.uniform(300, 900) * seconds,
        "falls": lambda: rng.uniform(900, 1400) - rng.uniform(300, 800) * seconds,
        "stays": lambda: np.full_like(seconds, rng.uniform(150, 1400)),
        "jumps": lambda: np.where(seconds < rng.uniform(0.3, 0.7), rng.uniform(150, 600), rng.uniform(800, 1400)),
        "trembles": lambda: (
            rng.uniform(400, 1200) + rng.uniform(60, 200) * np.sin(2 * np.pi * rng.uniform(3, 9) * seconds)
        ),
    }

    def spectrogram(course: np.ndarray) -> Image.Image:
        phase = 2 * np.pi * np.cumsum(course) / len(seconds)
        sound = np.sin(phase) + rng.uniform(0.5, 3) * rng.normal(size=len(seconds))
        windows = np.lib.stride_tricks.sliding_window_view(sound, 128)[:: (len(sound) - 128) // (side - 1)][:side]
        power = np.log(np.abs(np.fft.rfft(windows * np.hanning(128)))[:, :side].T + 1e-3)
        return to_image(255 * (power - power.min())[::-1] / np.ptp(power))

    return {label: [spectrogram(course()) for _ in range(images)] for label, course in courses.items()}


def textures(classes: int = 6, images: int = 110, side: int = 64) -> Images:
    """Gratings whose direction and width are the class, with other colours, phases and much noise in each image."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(side), np.arange(side))

    def grating(angle: float, width: float) -> Image.Image:
        turned = angle + rng.normal(0, 0.12)
        place = across * np.cos(turned) + down * np.sin(turned)
        wave = np.sin(2 * np.pi * place / (width * rng.uniform(0.9, 1.1)) + rng.uniform(0, 2 * np.pi))
        return to_image(128 + 45 * wave[..., None] * rng.uniform(0.3, 1, 3) + rng.normal(0, 45, (side, side, 3)))

    return {
        f"texture-{label}": [grating(np.pi * (label % 3) / 3, 5 + 4 * (label // 3)) for _ in range(images)]
        for label in range(classes)
    }


def smooth_noise(rng: np.random.Generator, side: int, scale: float) -> np.ndarray:
    """Random hills of about `scale` pixels, (side, side) float64 of deviation 1."""
    hills = gaussian_filter(rng.normal(size=(side, side)), scale, mode="wrap")
    return np.asarray(hills / hills.std())


def tiles(images: int = 140, side: int = 96) -> Images:
    """Land from above: fields, forest, houses, roads, rivers and lakes, most with a little of another class."""
    rng = np.random.default_rng(3)

    def curve(wide: float) -> list[tuple[float, float]]:
        along, turn = np.linspace(-side, 2 * side, 40), rng.uniform(0, 2 * np.pi)
        bent = wide * np.sin(along / side * rng.uniform(2, 5) + rng.uniform(0, 6)) + rng.uniform(-side / 4, side / 4)
        across, down = np.cos(turn) * (along - side / 2), np.sin(turn) * (along - side / 2)
        return list(zip(side / 2 + across - np.sin(turn) * bent, side / 2 + down + np.cos(turn) * bent, strict=True))

    def shade(red: int, green: int, blue: int) -> tuple[int, ...]:
        return tuple(int(each + rng.normal(0, 18)) for each in (red, green, blue))

    def draw(label: str) -> Image.Image:
        image = Image.new("RGB", (side, side), shade(120, 125, 85))
        pen = ImageDraw.Draw(image)
        if label == "fields" or rng.random() < 0.5:
            turn, width = rng.uniform(0, np.pi), rng.uniform(10, 35) if label == "fields" else side
            for step in np.arange(-2 * side, 2 * side, width):
                place = np.array([np.cos(turn), np.sin(turn)]) * step + side / 2
                way = np.array([-np.sin(turn), np.cos(turn)]) * 2 * side
                pen.line([*(place - way), *(place + way)], fill=shade(130, 135, 75), width=int(width) + 2)
        pixels = np.asarray(image, dtype=float)
        woods = smooth_noise(rng, side, rng.uniform(4, 12)) > (-0.4 if label == "forest" else 1.5)
        trees = np.array(shade(50, 75, 45)) + 12 * smooth_noise(rng, side, 0.8)[..., None]
        pixels = np.where(woods[..., None], trees, pixels)
        water = shade(60, 85, 110)
        if label == "lake":
            pixels[smooth_noise(rng, side, rng.uniform(12, 20)) > rng.uniform(-0.3, 0.6)] = water
        image = to_image(pixels)
        pen = ImageDraw.Draw(image)
        if label == "river":
            pen.line(curve(side / 5), fill=water, width=int(rng.integers(4, 14)), joint="curve")
        for _ in range(int(rng.integers(1, 4)) if label == "roads" else int(rng.random() < 0.25)):
            pen.line(curve(side / 12), fill=shade(150, 148, 145), width=int(rng.integers(2, 6)), joint="curve")
        for _ in range(int(rng.integers(6, 22)) if label == "houses" else int(rng.integers(0, 3))):
            left, top, wide, high = *rng.uniform(0, side, 2), *rng.uniform(4, 10, 2)
            pen.rectangle([left + 1, top + 1, left + wide + 2, top + high + 2], fill=shade(50, 50, 50))
            pen.rectangle([left, top, left + wide, top + high], fill=shade(165, 110, 95))
        light = rng.uniform(0.6, 1.2) + 0.06 * smooth_noise(rng, side, 25)[..., None]
        return to_image(np.asarray(image) * light + rng.normal(0, 10, (side, side, 3)))

    return {
        label: [draw(label) for _ in range(images)]
        for label in ("fields", "forest", "houses", "roads", "river", "lake")
    }


class Page:
    """A scanned page of nonsense, drawn at three times its size."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng, self.side, self.large = rng, side, 3 * side
        self.paper = Image.new("L", (self.large, self.large), int(rng.integers(205, 256)))
        self.pen, self.ink = ImageDraw.Draw(self.paper), int(rng.integers(0, 90))
        size, self.margin = int(rng.integers(7, 12)), int(rng.integers(20, 45))
        self.font = ImageFont.truetype(str(FONTS[rng.integers(len(FONTS))]), size)
        self.line, self.right = int(size * rng.uniform(1.3, 1.8)), self.large - self.margin
        top = self.margin + int(rng.integers(0, 60))
        self.lines = range(top, self.large - self.margin - self.line, self.line)
        if rng.random() < 0.6:
            self.write(self.margin, max(2, top - 2 * self.line), 3, self.right)

    def write(self, left: float, down: float, words: int, until: float) -> None:
        """As many of some words as fit."""
        letters = list("abcdeeimnorstu")
        text = " ".join("".join(self.rng.choice(letters, self.rng.integers(2, 9))) for _ in range(words))
        while text and self.pen.textlength(text, self.font) > until - left:
            text = text.rpartition(" ")[0]
        self.pen.text((left, down), text, fill=self.ink, font=self.font)

    def grid(self, down: int, rows: int, columns: int, ruled: bool) -> None:
        """A table, with all its lines or with that of its top."""
        edges = np.linspace(self.margin, self.right, columns + 1)
        heights = [down + row * self.line * 1.2 for row in range(rows)]
        for row, height in enumerate(heights):
            for left, until in pairwise(edges):
                self.write(left + 3, height + 2, 1, until - 2)
            if ruled or row == 0:
                self.pen.line([self.margin, height, self.right, height], fill=self.ink)
        for edge in edges if ruled else ():
            self.pen.line([edge, down, edge, heights[-1]], fill=self.ink)

    def letter(self) -> None:
        for down in self.lines[: int(self.rng.integers(2, 5))]:
            self.write(self.margin, down, 3, self.large / 2)
        for down in self.lines[6 : -int(self.rng.integers(4, 9))]:
            self.write(self.margin, down, 14, self.right - self.rng.uniform(0, 25))

    def article(self) -> None:
        for left, until in ((self.margin, self.large / 2 - 6), (self.large / 2 + 6, self.right)):
            for down in self.lines:
                self.write(left, down, 8 if self.rng.random() < 0.93 else 2, until)

    def items(self) -> None:
        for down in self.lines[:: int(self.rng.integers(1, 3))]:
            self.pen.text((self.margin, down), str(self.rng.choice(["•", "-"])), fill=self.ink, font=self.font)
            self.write(self.margin + 15, down, int(self.rng.integers(2, 8)), self.right)

    def form(self) -> None:
        for down in self.lines[::2]:
            self.write(self.margin, down, int(self.rng.integers(1, 3)), self.large / 3)
            below = down + self.font.size
            self.pen.line([self.large / 3, below, self.right, below], fill=self.ink)
            if self.rng.random() < 0.4:
                self.write(self.large / 3 + 5, down, 2, self.right)

    def table(self) -> None:
        rows = int(len(self.lines) * self.rng.uniform(0.6, 0.85))
        self.grid(self.lines[0], rows, int(self.rng.integers(3, 7)), self.rng.random() < 0.6)

    def invoice(self) -> None:
        for down in self.lines[:3]:
            self.write(self.margin, down, 2, self.large / 3)
            self.write(self.large * 0.62, down, 2, self.right)
        self.grid(self.lines[6], int(self.rng.integers(3, 9)), int(self.rng.integers(3, 5)), self.rng.random() < 0.4)

    def scanned(self) -> Image.Image:
        """Turned a little, uneven and noisy."""
        turned = self.paper.rotate(self.rng.uniform(-4, 4), Image.Resampling.BILINEAR, fillcolor=215)
        seen = np.asarray(turned.resize((self.side, self.side), Image.Resampling.BOX), dtype=float)
        return to_image(seen * (1 + 0.05 * smooth_noise(self.rng, self.side, 30)) + self.rng.normal(0, 8, seen.shape))


def pages(images: int = 110, side: int = 128) -> Images:
    """Scanned letters, articles in two columns, lists, forms, tables and invoices."""
    rng, drawn = np.random.default_rng(4), dict[str, list[Image.Image]]()
    for draw in (Page.letter, Page.article, Page.items, Page.form, Page.table, Page.invoice):
        for _ in range(images):
            page = Page(rng, side)
            draw(page)
            drawn.setdefault(draw.__name__, []).append(page.scanned())
    return drawn


def cells(images: int = 130, side: int = 96) -> Images:
    """Stained cells under a microscope: most of an image's are round, long, lobed, ringed or dividing."""
    rng, kinds = np.random.default_rng(5), ("round", "long", "lobed", "ringed", "dividing")
    down, across = np.mgrid[:side, :side]

    def cell(kind: str) -> np.ndarray:
        y, x = rng.uniform(4, side - 4, 2)
        turn, size = rng.uniform(0, np.pi), rng.uniform(5, 9)
        u = (across - x) * np.cos(turn) + (down - y) * np.sin(turn)
        v = (down - y) * np.cos(turn) - (across - x) * np.sin(turn)
        far, angle = np.hypot(u, v) / size, np.arctan2(v, u)
        edge = {
            "long": np.hypot(u / 1.7, v * 1.5) / size,
            "lobed": far / (1 + 0.22 * np.cos(3 * angle)),
            "dividing": np.minimum(np.hypot(u - size * 0.75, v), np.hypot(u + size * 0.75, v)) / size * 1.4,
        }.get(kind, far)
        inside = 1 / (1 + np.exp(8 * (edge - 1)))
        return np.asarray(inside - 0.7 / (1 + np.exp(8 * (edge - 0.55))) * (kind == "ringed"))

    def draw(label: str) -> Image.Image:
        stain = np.zeros((side, side))
        for _ in range(int(rng.integers(6, 14))):
            kind = label if rng.random() < 0.7 else str(rng.choice(kinds))
            stain = np.maximum(stain, cell(kind) * rng.uniform(0.5, 1))
        ground, dye = rng.uniform(190, 240, 3), rng.uniform(40, 150, 3) * np.array([1, 0.6, 1])
        stain = stain * (1 + 0.15 * smooth_noise(rng, side, 2)) + 0.12 * smooth_noise(rng, side, 8)
        pixels = ground + (dye - ground) * gaussian_filter(stain, rng.uniform(0.3, 1.3))[..., None]
        return to_image(pixels + rng.normal(0, 9, (side, side, 3)))

    return {kind: [draw(kind) for _ in range(images)] for kind in kinds}


def lesions(head: np.ndarray, images: int = 130, side: int = 96) -> Images:
    """Slices of a head with nothing, bright spots, a dark gap or a ring in its tissue.

    Parameters
    ----------
    head
        (X, Y, Z) float64 in 0..1, zero outside the head.
    images
        Of each class.
    side
        Of the image in pixels.
    """
    rng, down, across = np.random.default_rng(6), *np.mgrid[:side, :side]

    def draw(label: str) -> Image.Image:
        height = int(head.shape[2] * rng.uniform(0.35, 0.72))
        slice_ = np.rot90(head[:, :, height])
        grown = zoom(slice_, side / max(slice_.shape) * rng.uniform(0.85, 1.0), order=1)
        pixels = np.zeros((side, side))
        top, left = ((side - each) // 2 for each in grown.shape)
        pixels[top : top + grown.shape[0], left : left + grown.shape[1]] = grown
        pixels = rotate(pixels, rng.uniform(-8, 8), reshape=False, order=1)
        tissue = np.argwhere(gaussian_filter(pixels, 4) > 0.45)

        def far(size: float) -> np.ndarray:
            y, x = tissue[rng.integers(len(tissue))]
            wobble = 1 + 0.2 * smooth_noise(rng, side, 6)
            return np.asarray(np.hypot(down - y, (across - x) * rng.uniform(0.7, 1.4)) / size * wobble)

        if label == "spots":
            for _ in range(int(rng.integers(2, 6))):
                pixels += rng.uniform(0.15, 0.35) * np.exp(-(far(rng.uniform(1.5, 3)) ** 2))
        elif label == "gap":
            pixels *= 1 - rng.uniform(0.35, 0.7) * np.exp(-(far(rng.uniform(4, 8)) ** 4))
        elif label == "ring":
            ring = far(rng.uniform(5, 9))
            pixels += rng.uniform(0.15, 0.3) * np.exp(-(((ring - 1) / 0.25) ** 2)) - 0.2 * np.exp(-(ring**4))
        shadow = 1 + 0.08 * smooth_noise(rng, side, 25)
        return to_image(230 * pixels * shadow + rng.normal(0, 7, pixels.shape))

    return {label: [draw(label) for _ in range(images)] for label in ("none", "spots", "gap", "ring")}
