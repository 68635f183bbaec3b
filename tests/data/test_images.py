"""Single images: every kind of file gives uint8 (C, H, W), or a reason."""

import logging
import struct
import zlib

import numpy as np
import pytest

from gpucnn.data import fit_channels, load_dataset, read_image
from gpucnn.errors import ArgumentError, DataError, MissingExtraError

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (5, 7), np.uint8)
COLOUR = rng.integers(0, 256, (5, 7, 3), np.uint8)


def refused(path, match):
    with pytest.raises(DataError, match=match) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "bmp", "PNG"])
def test_grey_and_colour(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == (1, 5, 7) and image.flags.writeable and image.flags.c_contiguous
    np.testing.assert_array_equal(image[0], GREY)
    Image.fromarray(COLOUR).save(path)
    np.testing.assert_array_equal(read_image(str(path)), COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize("size", [8, "8", (8, 8), "8x8", 4, (3, 9)])
def test_an_image_of_another_size_is_that_of_a_data_set_of_this_size(tmp_path, size):
    """As a model is trained with it."""
    for name in ("train", "test"):
        (tmp_path / name / "one").mkdir(parents=True)
        (tmp_path / name / "two").mkdir(parents=True)
        Image.fromarray(COLOUR).save(tmp_path / name / "one" / "a.png")
        Image.fromarray(COLOUR[::-1, ::-1, :].copy()).save(tmp_path / name / "two" / "b.png")
    data = load_dataset(f"{tmp_path}/", image_size=size)
    np.testing.assert_array_equal(read_image(tmp_path / "train" / "one" / "a.png", size), data.train_images[0])
    np.testing.assert_array_equal(read_image(tmp_path / "train" / "two" / "b.png", image_size=size), data.train_images[1])
    with pytest.raises(ArgumentError, match="image_size must be a number of pixels or HEIGHTxWIDTH"):
        read_image(tmp_path / "train" / "one" / "a.png", "large")


def test_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6), (200, 100, 50)).save(path, quality=95)
    image = read_image(path)
    assert image.shape == (3, 6, 8) and np.abs(image[:, 2, 2].astype(int) - [200, 100, 50]).max() < 4


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turn by 90° clockwise to show it
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], np.rot90(GREY, -1))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        *[(1, GREY), (2, GREY[:, ::-1]), (3, GREY[::-1, ::-1]), (4, GREY[::-1])],
        *[(5, GREY.T), (6, np.rot90(GREY, -1)), (7, GREY[::-1, ::-1].T), (8, np.rot90(GREY))],
    ],
)
def test_every_exif_orientation_of_a_photograph(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[274] = orientation
    large = GREY.repeat(16, axis=0).repeat(16, axis=1)  # blocks of a JPEG, so that it keeps their means
    Image.fromarray(large).save(tmp_path / "a.jpg", exif=exif, quality=100)
    image = read_image(tmp_path / "a.jpg")[0]
    assert image.shape == (16 * turned.shape[0], 16 * turned.shape[1])
    np.testing.assert_allclose(image[8::16, 8::16], turned, atol=2)


def test_four_inks(tmp_path):
    """CMYK, whose JPEGs are stored upside down, and colours as people see them."""
    colour = Image.new("RGB", (8, 8), (250, 10, 20))
    for name in ("a.jpg", "a.tiff"):
        colour.convert("CMYK").save(tmp_path / name)
        np.testing.assert_allclose(read_image(tmp_path / name)[:, 3, 3].astype(int), [250, 10, 20], atol=3)
    Image.new("YCbCr", (4, 4), (76, 85, 255)).save(tmp_path / "b.jpg")
    np.testing.assert_allclose(read_image(tmp_path / "b.jpg")[:, 0, 0].astype(int), [255, 0, 0], atol=3)


@pytest.mark.parametrize(("kind", "channels", "expected"), [(2, 3, [255, 128, 1]), (6, 4, [255, 128, 1]), (0, 1, [255])])
def test_sixteen_bits_of_colour(tmp_path, kind, channels, expected):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixel = struct.pack(f">{channels}H", *[65535, 32768, 257, 65535][:channels])
    raw = zlib.compress((b"\0" + pixel * 2) * 2)
    header = struct.pack(">IIBBBBB", 2, 2, 16, kind, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", raw) + chunk(b"IEND", b""))
    assert read_image(tmp_path / "a.png")[:, 1, 1].tolist() == expected


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "a.gif") == 10).all()


def test_bilevel_and_sixteen_bits(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], np.where(GREY > 127, 255, 0))
    wide = np.array([[0, 256, 257, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[0], [[0, 1, 1, 255]])
    Image.fromarray(wide.astype(np.int32)).save(tmp_path / "c.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "c.tiff")[0], [[0, 1, 1, 255]])
    Image.fromarray(wide.astype(np.int32) + 1).save(tmp_path / "d.tiff")
    refused(tmp_path / "d.tiff", "16 bits")
    Image.fromarray(wide.astype(np.float32)).save(tmp_path / "e.tiff")
    refused(tmp_path / "e.tiff", "floating-point")


def test_palettes(tmp_path):
    grey = Image.fromarray(GREY).convert("P")
    grey.save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), GREY[None])
    colour = Image.fromarray(COLOUR).quantize(200)
    colour.save(tmp_path / "colour.png")
    np.testing.assert_array_equal(read_image(tmp_path / "colour.png"), np.asarray(colour.convert("RGB")).transpose(2, 0, 1))


def test_transparency_is_laid_over_white(tmp_path):
    alpha = np.full((5, 7), 255, np.uint8)
    alpha[0], alpha[1] = 0, 51
    Image.fromarray(np.dstack([GREY, alpha])).save(tmp_path / "la.png")
    image = read_image(tmp_path / "la.png")
    assert image.shape == (1, 5, 7) and (image[0, 0] == 255).all()
    np.testing.assert_array_equal(image[0, 1], np.rint(GREY[1] * 0.2 + 255 * 0.8))
    np.testing.assert_array_equal(image[0, 2:], GREY[2:])
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "rgba.png")
    image = read_image(tmp_path / "rgba.png")
    assert image.shape == (3, 5, 7) and (image[:, 0] == 255).all()
    np.testing.assert_array_equal(image[:, 2:], COLOUR.transpose(2, 0, 1)[:, 2:])
    Image.fromarray(np.array([[0, 9]], np.uint8)).save(tmp_path / "key.png", transparency=9)
    np.testing.assert_array_equal(read_image(tmp_path / "key.png"), [[[0, 255]]])


def test_what_is_no_image(tmp_path):
    refused(tmp_path / "none.png", "does not exist")
    refused(tmp_path, "is a folder")
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    refused(path, "cannot be read as an image")
    path.write_bytes(b"not an image")
    refused(path, "cannot be read as an image")
    Image.fromarray(COLOUR).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 20, 7):
        path.write_bytes(whole[:length])
        refused(path, "cannot be read as an image")


def test_pillows_log_of_a_damaged_file_is_not_printed(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.tiff"
    Image.fromarray(COLOUR).save(path)
    samples = struct.pack("<HHI", 277, 3, 1)  # for each pixel
    assert samples in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(samples + b"\3\0", samples + b"\xff\xff"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    refused(path, "cannot be read as an image")
    assert capsys.readouterr() == ("", "")


def test_a_decompression_bomb(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (9_000, 12_000, 2**31 - 1):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
        (tmp_path / "bomb.png").write_bytes(raw)
        refused(tmp_path / "bomb.png", "pixels, over 67,108,864: give a smaller|over 67,108,864 pixels: give a smaller")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY[None]),
        (GREY[None], GREY[None]),
        (GREY[..., None], GREY[None]),
        (COLOUR, COLOUR.transpose(2, 0, 1)),
        (COLOUR.transpose(2, 0, 1), COLOUR.transpose(2, 0, 1)),
        (COLOUR[:3], COLOUR[:3]),  # (3, 7, 3) fits both ways: (C, H, W)
        (np.array([[0.0, 0.5, 1.0]]), [[[0, 128, 255]]]),
        (np.array([[0.0, 1.0]], np.float16), [[[0, 255]]]),
        (GREY.astype(np.float32) / 255, GREY[None]),
        *((GREY.astype(kind), GREY[None]) for kind in (np.int64, np.uint16, ">i4")),
        (COLOUR.astype(np.int16), COLOUR.transpose(2, 0, 1)),
    ],
)
def test_npy(tmp_path, array, expected):
    np.save(tmp_path / "a.npy", array)
    image = read_image(tmp_path / "a.npy")
    assert image.dtype == np.uint8 and type(image) is np.ndarray and image.flags.writeable and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((2, 5, 7), np.uint8), "shape"),
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((1, 1, 5, 7), np.uint8), "shape"),
        (np.array([[0, 256]]), "0 to 256 where integers are pixels"),
        (np.array([[-1, 3]], np.int8), "-1 to 3 where"),
        (np.zeros((5, 7), complex), "complex128"),
        (np.zeros((5, 7), bool), "bool"),
        (np.full((5, 7), np.nan), "NaN"),
        (np.full((5, 7), np.inf), "infinite"),
        (np.full((5, 7), 1.5), "from 1.5 to 1.5"),
        (np.full((5, 7), -0.5), "from -0.5"),
        (np.zeros((0, 7), np.uint8), "no pixels"),
        (np.array([[object()]]), "without objects"),
    ],
)
def test_npy_that_is_no_image(tmp_path, array, match):
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", match)


def test_damaged_npy(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, COLOUR)
    whole = path.read_bytes()
    for length in [0, 3, 8, 40, 128, len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path, "cannot be read as a .npy")
    path.write_bytes(b"plain text")
    refused(path, r"cannot be read as a .npy array \(it does not begin as one\): write it again with numpy.save, without objects$")
    path.write_bytes(whole.replace(b"(5, 7, 3)", b"(5000000000000, 7, 3)"))
    refused(path, "cannot be read as a .npy")
    with open(path, "wb") as file:
        np.savez(file, COLOUR)
    refused(path, ".npz")


def test_without_pillow(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r'pip install -e ".*\[images\]"'):
        read_image(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", GREY)
    read_image(tmp_path / "a.npy")


def test_channels():
    image = COLOUR.transpose(2, 0, 1)
    assert fit_channels(image, 3) is image
    grey = fit_channels(image, 1)
    assert grey.shape == (1, 5, 7) and grey.dtype == np.uint8
    np.testing.assert_array_equal(grey[0], np.floor(image.astype(np.float64).T @ [0.299, 0.587, 0.114] + 0.5 + 1e-9).T)
    np.testing.assert_array_equal(fit_channels(GREY[None], 3), np.stack([GREY] * 3))
    np.testing.assert_array_equal(fit_channels(fit_channels(GREY[None], 3), 1), GREY[None])
    assert fit_channels(np.zeros((4, 3, 5, 7), np.uint8), 1).shape == (4, 1, 5, 7)
    with pytest.raises(DataError, match="1 channels cannot be turned into one of 2"):
        fit_channels(GREY[None], 2)
