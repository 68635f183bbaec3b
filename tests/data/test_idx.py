"""The idx format: what is written is read again, and nothing but a whole and right file is."""

import gzip
import hashlib
import os
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpucnn.data import load_pair, read_idx, write_idx
from gpucnn.errors import DataError

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some-idx3-ubyte"


def content(shape=(2, 3, 3), dtype=8, size=1):
    count = int(np.prod(shape)) * size
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, dtype, len(shape), *shape) + (np.arange(count) % 251).astype(np.uint8).tobytes()


def refused(path, match, **options):
    with pytest.raises(DataError, match=match) as caught:
        read_idx(path, **options)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and len(text) < 400
    return text


@quick
@given(st.data())
def test_what_is_written_is_read(tmp_path, data):
    dtype = data.draw(st.sampled_from(DTYPES))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4)))
    file = tmp_path / data.draw(st.sampled_from(["a", "a.gz"]))
    write_idx(file, array)
    read = read_idx(file)
    assert read.dtype == array.dtype and read.dtype.isnative and read.shape == array.shape and read.flags.writeable
    assert read.tobytes() == array.tobytes()  # bytes: NaN and −0 count


@pytest.mark.parametrize(
    ("code", "raw", "expected"),
    [
        (8, b"\xff", np.uint8(255)),
        (9, b"\xff", np.int8(-1)),
        (11, b"\x01\x02", np.int16(258)),
        (12, b"\xff\xff\xff\xfe", np.int32(-2)),
        (13, b"\x3f\x80\x00\x00", np.float32(1)),
        (14, b"\xbf\xf0" + bytes(6), np.float64(-1)),
    ],
)
def test_every_type_is_big_endian_in_the_file(path, code, raw, expected):
    path.write_bytes(struct.pack(">BBBBI", 0, 0, code, 1, 1) + raw)
    assert read_idx(path)[0] == expected and read_idx(path).dtype == expected.dtype


def test_any_number_of_dimensions(path):
    shape = (1,) * 63 + (2,)
    path.write_bytes(content(shape))
    assert read_idx(path).shape == shape
    path.write_bytes(bytes([0, 0, 8, 200]) + b"\0\0\0\1" * 200 + b"x")
    refused(path, "200 dimensions")


def test_compression_is_found_by_content(tmp_path):
    raw = tmp_path / "raw.gz"
    raw.write_bytes(content())
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(content()))
    np.testing.assert_array_equal(read_idx(raw), read_idx(str(packed)))


def test_what_is_no_idx_file(tmp_path, path):
    refused(path, "does not exist")
    refused(tmp_path, "is a folder")
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_bytes(gzip.compress(b""))
    refused(path, "is empty")
    path.write_bytes(b"\x89PNG\r\n")
    refused(path, "89 50 4e 47")
    path.write_bytes(b"\0\0\x0a\x01\0\0\0\0")
    refused(path, "00 00 0a 01")
    path.write_bytes(b"\0\0\x08\0")
    refused(path, "0 dimensions")
    path.write_bytes(b"<!DOCTYPE html>")
    refused(path, "web page")
    with pytest.raises(DataError, match="not a usable path"):
        read_idx("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_without_waiting(path):
    os.mkfifo(path)
    refused(path, "not a regular file")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda raw: gzip.compress(raw, 0)])
def test_truncation_at_every_byte(path, pack):
    whole = pack(content())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, "empty|truncated|damaged gzip|begins with 1f where")


@pytest.mark.parametrize("surplus", [b"\0", b"x", b"x" * 5000])
def test_surplus_bytes(path, surplus):
    path.write_bytes(content() + surplus)
    refused(path, "continues after the 18 bytes")
    path.write_bytes(gzip.compress(content() + surplus))
    refused(path, "continues after")


def test_surplus_after_the_gzip_stream(path):
    path.write_bytes(gzip.compress(content()) + b"junk")
    refused(path, "damaged gzip")


def test_corrupt_gzip(path):
    whole = bytearray(gzip.compress(content()))
    whole[-8] ^= 1
    path.write_bytes(whole)
    refused(path, "damaged gzip file .*CRC")
    path.write_bytes(b"\x1f\x8b" + b"garbage" * 20)
    refused(path, "damaged gzip")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_flipped_byte_of_a_checked_file_is_caught(path, pack):
    raw = content()
    sha256 = hashlib.sha256(raw).hexdigest()
    whole = bytearray(pack(raw))
    path.write_bytes(whole)
    expected = read_idx(path, sha256=sha256.upper())
    for position in range(len(whole)):
        for flip in (1, 0x80, 0xFF):
            changed = bytearray(whole)
            changed[position] ^= flip
            path.write_bytes(changed)
            try:
                read = read_idx(path, sha256=sha256)
            except DataError:
                continue
            assert pack is gzip.compress  # which has bytes that do not touch the content: the time, the padding of the last bits
            np.testing.assert_array_equal(read, expected)


@quick
@given(st.binary(max_size=80), st.booleans())
def test_arbitrary_bytes_give_an_array_or_a_data_error(tmp_path, raw, header):
    file = tmp_path / "f"
    file.write_bytes(content()[:8] + raw if header else raw)
    with suppress(DataError):
        read_idx(file)


def test_the_hash_is_of_the_uncompressed_bytes(path):
    path.write_bytes(gzip.compress(content()))
    read_idx(path, sha256=hashlib.sha256(content()).hexdigest())
    text = refused(path, ", expected 0000", sha256="0" * 64)
    assert hashlib.sha256(content()).hexdigest() in text and "delete it" in text


@pytest.mark.parametrize("shape", [(2**32 - 1, 2**32 - 1), (2**32 - 1,) * 3, (0, 2**32 - 1, 2**32 - 1, 2**32 - 1)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_absurd_dimensions_take_no_memory(path, shape, pack):
    path.write_bytes(pack(struct.pack(f">BBBB{len(shape)}I", 0, 0, 14, len(shape), *shape) + bytes(100)))
    tracemalloc.start()
    refused(path, "truncated or corrupt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_gzip_bomb_is_read_no_further_than_announced(path):
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    path.write_bytes(bomb.compress(content()) + b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush())
    tracemalloc.start()
    refused(path, "continues after")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_the_expected_shape_is_held_against_the_header(path):
    path.write_bytes(content())
    assert read_idx(path, shape=(2, 3, 3)).shape == (2, 3, 3)
    refused(path, "announces 2 × 3 × 3, expected 2 × 3 × 4", shape=(2, 3, 4))


def test_writing(tmp_path, monkeypatch):
    file = tmp_path / "a.gz"
    array = np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2]
    write_idx(file, array)
    np.testing.assert_array_equal(read_idx(file), array)
    first = file.read_bytes()
    write_idx(file, array)
    assert file.read_bytes() == first

    with pytest.raises(DataError, match=r"no int64.*uint8"):
        write_idx(file, np.zeros(3, np.int64))
    with pytest.raises(DataError, match="1 to 64 dimensions"):
        write_idx(file, np.uint8(3))
    with pytest.raises(DataError, match="cannot be written"):
        write_idx(tmp_path / "no" / "a", array)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        write_idx(file, np.zeros(3, np.uint8))
    assert file.read_bytes() == first and os.listdir(tmp_path) == ["a.gz"]


def pair(tmp_path, images, labels):
    write_idx(tmp_path / "images", np.asarray(images))
    write_idx(tmp_path / "labels", np.asarray(labels))
    return tmp_path / "images", tmp_path / "labels"


def test_a_pair(tmp_path):
    x, y = load_pair(*pair(tmp_path, np.ones((3, 2, 2), np.uint8), np.array([0, 1, 2], np.uint8)), 3)
    assert x.shape == (3, 2, 2) and x.dtype == np.uint8 and y.tolist() == [0, 1, 2] and y.dtype == np.int32


U8 = np.uint8


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (np.zeros((3, 2, 2), U8), np.zeros(4, U8), "3 images .* 4 labels"),
        (np.zeros((4, 2, 2), U8), np.array([0, 1, 9, 8], U8), "label 2 is 9 where 3 classes allow 0 to 2"),
        (np.zeros((2, 2, 2), U8), np.array([0, -1], np.int8), "label 1 is -1"),
        (np.zeros((3, 4), U8), np.zeros(3, U8), "swapped"),
        (np.zeros((3, 1, 2, 2), U8), np.zeros(3, U8), "swapped"),
        (np.zeros((3, 2, 2), np.float32), np.zeros(3, U8), "float32"),
        (np.zeros((3, 2, 2), U8), np.zeros((3, 1), U8), "swapped"),
        (np.zeros((3, 2, 2), U8), np.zeros(3, np.float32), "float32"),
        (np.zeros((0, 2, 2), U8), np.zeros(0, U8), "no pixels"),
        (np.zeros((2, 0, 2), U8), np.zeros(2, U8), "no pixels"),
    ],
)
def test_pairs_that_do_not_fit(tmp_path, images, labels, match):
    with pytest.raises(DataError, match=match):
        load_pair(*pair(tmp_path, images, labels), 3)
