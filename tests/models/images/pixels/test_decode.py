import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unfreeze.models.images.pixels.bit_depth import ranges_of
from unfreeze.models.images.pixels.decode import (
    BYTES_PER_PIXEL,
    UnreadableImage,
    check_image,
    draft_side,
    make_square,
    read_image,
)
from unfreeze.models.store.content import map_in_order


def photo(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """A smooth image, so that JPEG compression changes it little."""
    rows, columns = np.mgrid[0:height, 0:width]
    shift = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(rows / 9 + shift[0]), np.cos(columns / 11 + shift[1]), np.sin((rows + columns) / 13 + shift[2])]
    return Image.fromarray(np.stack([127 + 100 * wave for wave in waves], -1).astype(np.uint8))


def huge_png(side: int) -> bytes:
    """A valid PNG header of any size, without the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def reason(path: Path, max_megapixels: float = 100) -> str:
    """Why a file is refused; reading and checking must agree."""
    with pytest.raises(UnreadableImage) as checked:
        check_image(path, max_megapixels)
    with pytest.raises(UnreadableImage) as read:
        read_image(path, max_megapixels)
    assert str(read.value) == str(checked.value)
    return str(read.value)


def read_alone(path: Path) -> np.ndarray:
    """Levels of an image that is a data set of its own."""
    return np.asarray(read_image(path, 100, ranges=ranges_of([check_image(path, 100).samples])))


def test_an_rgb_image_is_read_as_it_is(tmp_path):
    photo().save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 100)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(photo()))
    assert check_image(tmp_path / "a.png", 100)[:2] == (60, 40)


def test_zero_bytes_are_refused(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert reason(tmp_path / "a.jpg") == "zero bytes"


@pytest.mark.parametrize("content", [b"hello, this is text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_other_files_are_not_images(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    assert reason(tmp_path / "a.jpg") == "not an image; export other formats as JPEG, PNG or TIFF"


def test_a_missing_file_cannot_be_read(tmp_path):
    assert reason(tmp_path / "a.jpg") == "cannot be read: No such file or directory"


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("jpeg", {}),
        ("jpeg", {"progressive": True}),
        ("png", {}),
        ("gif", {}),
        ("webp", {"lossless": True}),
        ("bmp", {}),
        ("tiff", {}),
    ],
)
def test_a_truncated_image_is_refused(tmp_path, kind, options, kept):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, kind, **options)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(buffer.getvalue()[: int(kept * buffer.tell())])
    with pytest.raises(UnreadableImage, match=r"truncated or damaged|not an image"):
        check_image(path, 100)
    with pytest.raises(UnreadableImage, match=r"truncated or damaged|not an image"):
        read_image(path, 100, at_least=64)


def test_an_image_cut_within_its_header_is_called_damaged(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    assert reason(tmp_path / "a.jpg").startswith("truncated or damaged")


def test_a_gigapixel_header_is_refused_without_decoding_or_warning(tmp_path):
    (tmp_path / "a.png").write_bytes(huge_png(50_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(tmp_path / "a.png") == "2,500 megapixels exceed data.max_megapixels=100"


def test_a_large_image_below_the_limit_does_not_warn(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_image(tmp_path / "a.png", 100)[:2] == (10_000, 10_000)


@pytest.mark.parametrize("size", [(1, 1), (3, 200)])
def test_a_tiny_image_is_too_small(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert reason(tmp_path / "a.png") == f"{size[0]}x{size[1]} pixels: too small"


def test_cmyk_keeps_its_colours(tmp_path):
    Image.new("RGB", (32, 32), (200, 30, 60)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    colour = np.asarray(read_image(tmp_path / "a.jpg", 100)).reshape(-1, 3).mean(0)
    np.testing.assert_allclose(colour, (200, 30, 60), atol=6)


def test_sixteen_bit_grayscale_is_scaled_and_not_clipped(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))
    for name in ("a.png", "a.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        levels = np.asarray(read_image(tmp_path / name, 100))
        np.testing.assert_array_equal(levels[..., 0], np.rint(ramp / 257))


@pytest.mark.parametrize("factor", [1 / 255, 1.0, 1.2, 1000.0, -3.0])
def test_float_grayscale_is_scaled_by_its_range(tmp_path, factor):
    ramp = np.tile(np.arange(256, dtype=np.float32), (8, 1))
    Image.fromarray(ramp * np.float32(factor)).save(tmp_path / "a.tif")
    levels = read_alone(tmp_path / "a.tif")[..., 0]
    np.testing.assert_allclose(levels, ramp if factor > 0 else 255 - ramp, atol=1)


def test_wide_integers_are_scaled_by_their_range(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.int32) * 100_000, (8, 1))
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    levels = read_alone(tmp_path / "a.tif")[..., 0]
    np.testing.assert_allclose(levels, ramp * (255 / (2**25 - 1)), atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path, mode):
    image = Image.new("RGBA", (20, 10), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 10))
    image.convert(mode).save(tmp_path / "a.png")
    levels = np.asarray(read_image(tmp_path / "a.png", 100))
    assert (levels[:, :10] == 255).all()
    assert (levels[:, 10:] == 0).all()


def test_a_palette_with_a_transparent_colour_becomes_white_there(tmp_path):
    image = Image.new("P", (20, 10), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (10, 0, 20, 10))
    image.save(tmp_path / "a.gif", transparency=0)
    levels = np.asarray(read_image(tmp_path / "a.gif", 100))
    assert levels[0, 0].tolist() == [255, 255, 255]
    assert levels[0, 15].tolist() == [200, 100, 50]


def test_black_and_white_becomes_rgb(tmp_path):
    Image.new("1", (10, 10), 1).save(tmp_path / "a.png")
    assert (np.asarray(read_image(tmp_path / "a.png", 100)) == 255).all()


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_an_animation_gives_its_first_frame(tmp_path, kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "webp" else {}
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], **options)
    assert np.asarray(read_image(tmp_path / f"a.{kind}", 100))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(tmp_path, kind, orientation):
    stored_as = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    image = photo()
    for turn in stored_as:
        image = image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    image.save(path, exif=exif, **({"quality": 95} if kind == "jpg" else {}))
    upright = np.asarray(read_image(path, 100)).astype(int)
    assert check_image(path, 100)[:2] == (60, 40)
    assert np.abs(upright - np.asarray(photo())).mean() < (4 if kind == "jpg" else 0.01)


def test_reduced_decoding_keeps_the_side_that_is_needed(tmp_path):
    photo(2400, 1800).save(tmp_path / "a.jpg")
    assert min(read_image(tmp_path / "a.jpg", 100, at_least=224).size) == 900
    assert min(read_image(tmp_path / "a.jpg", 100, at_least=900).size) == 1800
    assert min(read_image(tmp_path / "a.jpg", 100).size) == 1800
    assert [draft_side(size) for size in (16, 512, 513, 1024)] == [512, 512, 1024, 1024]


def test_reduced_decoding_hardly_changes_the_square(tmp_path):
    photo(2400, 1800).save(tmp_path / "a.jpg", quality=95)
    reduced, whole = (
        make_square(read_image(tmp_path / "a.jpg", 100, at_least), 64, "crop", "bicubic").astype(int)
        for at_least in (64, None)
    )
    assert np.abs(reduced - whole).max() <= 2


@pytest.mark.parametrize("fit", ["crop", "squish", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("size", [(90, 40), (33, 77), (8, 8)])
def test_squares_have_the_asked_size(fit, interpolation, size):
    square = make_square(photo(*size), 32, fit, interpolation)
    assert (square.shape, square.dtype, square.flags.writeable) == ((32, 32, 3), np.uint8, True)


def test_each_fit_keeps_what_it_promises():
    stripes = Image.new("RGB", (90, 30), "red")
    stripes.paste((0, 255, 0), (30, 0, 60, 30))
    crop, squish, pad = (make_square(stripes, 30, fit, "nearest") for fit in ("crop", "squish", "pad"))
    assert (crop == (0, 255, 0)).all()
    assert (squish[:, :10] == (255, 0, 0)).all()
    assert (squish[:, 10:20] == (0, 255, 0)).all()
    assert (pad[:10] == 0).all()
    assert (pad[20:] == 0).all()
    assert (pad[10:20, 10:20] == (0, 255, 0)).all()


def test_shrinking_is_antialiased():
    board = np.indices((256, 256)).sum(0) % 2 * 255
    square = make_square(Image.fromarray(board.astype(np.uint8)).convert("RGB"), 16, "crop", "bilinear")
    assert np.abs(square.astype(int) - 127).max() <= 2


def test_threads_read_what_one_thread_reads(tmp_path):
    for number in range(24):
        photo(seed=number).save(tmp_path / f"{number}.jpg")
    paths = [tmp_path / f"{number}.jpg" for number in range(24)] * 4
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda path: np.asarray(read_image(path, 100)), paths))
    for path, levels in zip(paths, threaded, strict=True):
        np.testing.assert_array_equal(levels, np.asarray(read_image(path, 100)))


def test_work_in_threads_keeps_order_and_stays_bounded():
    taken: list[int] = []

    def numbers():
        for number in range(50):
            taken.append(number)
            yield number

    results = map_in_order(lambda number: number * 2, numbers(), threads=3, in_flight=5)
    assert next(results) == 0
    assert len(taken) == 5
    assert list(results) == list(range(2, 100, 2))


def test_an_error_in_a_thread_reaches_the_caller():
    def fail(number: int) -> int:
        raise ZeroDivisionError(number)

    with pytest.raises(ZeroDivisionError):
        list(map_in_order(fail, range(100), threads=2, in_flight=4))


# --- memory


def deflated_png(width: int, height: int, bits: int, colour: int, extra: bytes = b"") -> bytes:
    """A PNG of one colour, of any size, without ever holding its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    line = b"\0" + b"\x01" * (width * channels * bits // 8)
    deflate = zlib.compressobj(1)
    pixels = b"".join(deflate.compress(line) for _ in range(height)) + deflate.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def palette(transparent: bytes) -> bytes:
    parts = ((b"PLTE", bytes(range(6))), (b"tRNS", transparent))
    return b"".join(struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in parts)


def saved(kind: str, mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((4000, 4000)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


LARGE = {
    "rgba": lambda: deflated_png(4000, 4000, 8, 6),
    "rgba of 16 bits": lambda: deflated_png(4000, 4000, 16, 6),
    "very wide rgba": lambda: deflated_png(2_000_000, 8, 8, 6),
    "grayscale of 16 bits": lambda: deflated_png(4000, 4000, 16, 0),
    "grayscale with transparency": lambda: deflated_png(4000, 4000, 8, 4),
    "palette with transparency": lambda: deflated_png(4000, 4000, 8, 3, palette(b"\x00\x80")),
    "turned rgba": lambda: saved("PNG", "RGBA", compress_level=1, exif=turned()),
    "floats": lambda: saved("TIFF", "F"),
    "turned jpeg": lambda: saved("JPEG", "RGB", exif=turned()),
    "progressive cmyk": lambda: saved("JPEG", "CMYK", progressive=True, subsampling=0),
}
PEAK = """
import sys
from pathlib import Path
from unfreeze.models.images.pixels.bit_depth import ranges_of
from unfreeze.models.images.pixels.decode import check_image, read_image

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

small, large = map(Path, sys.argv[1:])
read_image(small, 1)
before = peak()
read_image(large, 16, ranges=ranges_of([check_image(large, 16).samples]))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("name", LARGE)
def test_an_image_at_the_limit_takes_at_most_12_bytes_per_pixel(tmp_path, name):
    (tmp_path / "large").write_bytes(LARGE[name]())
    photo().convert("RGBA").save(tmp_path / "small.png")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "small.png"), str(tmp_path / "large")]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert taken <= 16_000_000 * BYTES_PER_PIXEL + 8 * 2**20


@pytest.mark.parametrize(("kind", "megapixels"), [("WEBP", 0.67), ("JPEG2000", 0.47), ("AVIF", 0.87)])
def test_a_format_that_takes_more_per_pixel_may_have_fewer(tmp_path, kind, megapixels):
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {kind}")
    photo(1000, int(megapixels * 1000)).save(tmp_path / "a", kind)
    assert reason(tmp_path / "a", 1).startswith(f"decoding {megapixels:g} megapixels of {kind} takes 0.0")
    photo(1000, int(megapixels * 1000) - 20).save(tmp_path / "b", kind)
    assert read_image(tmp_path / "b", 1).width == 1000


def test_a_tiff_counts_the_pixels_of_its_tiles(tmp_path):
    data = zlib.compress(bytes(2048 * 1024))
    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 2048),
        (323, 1024),
        (324, 8),
        (325, len(data)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    table = struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + table)
    assert reason(tmp_path / "a.tif", 1) == "2.09715 megapixels exceed data.max_megapixels=1"
    assert read_image(tmp_path / "a.tif", 3).size == (16, 16)


def test_samples_of_rare_types_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(deflated_png(8, 8, 16, 4))
    assert reason(tmp_path / "a.png").startswith("samples of a type that is not read")
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "b.tif", tiffinfo={339: 2})
    Image.fromarray(np.eye(8, dtype=np.int32)).save(tmp_path / "c.tif")
    signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, kind, 0) for kind in (2, 1))
    (tmp_path / "c.tif").write_bytes((tmp_path / "c.tif").read_bytes().replace(signed, unsigned))
    for name in ("b.tif", "c.tif"):
        assert reason(tmp_path / name).startswith("samples of a type that is not read")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "I", "F", "CMYK", "P"])
def test_tiles_leave_no_seams(tmp_path, mode):
    gradient = Image.linear_gradient("L").resize((1100, 700))
    if mode == "RGBA":
        gradient = Image.merge("RGBA", [gradient, gradient, gradient.rotate(180), gradient.rotate(90)])
    image = Image.fromarray(np.asarray(gradient).astype(np.uint16) * 257) if mode == "I;16" else gradient.convert(mode)
    image.save(tmp_path / "a.tif")
    levels = read_alone(tmp_path / "a.tif")
    if mode == "RGBA":
        flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    else:
        flat = (image if mode in ("CMYK", "LA", "P") else gradient).convert("RGB")
    expected = np.asarray(flat).astype(float)
    np.testing.assert_array_equal(levels, expected)


@pytest.mark.filterwarnings("error")
def test_a_gray_image_whose_values_span_more_than_a_float_holds_is_scaled(tmp_path):
    values = np.array([[-3e38, 0.0], [1e38, 3e38]], np.float32)
    Image.fromarray(values.repeat(4, 0).repeat(4, 1)).save(tmp_path / "wide.tif")
    found = read_alone(tmp_path / "wide.tif")[..., 0]
    assert found[::4, ::4].tolist() == [[0, 128], [170, 255]]


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_a_photo_in_heic_says_which_package_it_needs(tmp_path, monkeypatch, brand):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    assert reason(tmp_path / "a.heic") == "HEIC, which needs the package pillow-heif; pip install 'unfreeze[heic]'"


def test_an_image_whose_range_the_training_does_not_say_is_read_only_if_its_values_do(tmp_path):
    ramp = np.tile(np.arange(64, dtype=np.uint16), (8, 1))
    for factor in (60, 600, 1000):
        Image.fromarray(ramp * factor).save(tmp_path / f"{factor}.png")
    assert np.asarray(read_image(tmp_path / "1000.png", 100)).max() == 245
    assert np.asarray(read_image(tmp_path / "600.png", 100)).max() == 147
    with pytest.raises(UnreadableImage, match="which of 0 to 3780 are black and white is unknown"):
        read_image(tmp_path / "60.png", 100)
    assert np.asarray(read_image(tmp_path / "60.png", 100, ranges={"integer": (0, 3780)})).max() == 255
