"""Parquet files of images: made here as Hugging Face's library makes them, and by that library where it is installed."""

import io
import json
import os

import numpy as np
import pytest

from gpucnn.data import load_dataset, tables
from gpucnn.errors import DataError, MissingExtraError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
NAMES = ["zebra", "ant", "cow"]  # in no order


def png(value, size=(4, 3), mode="L"):
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, "PNG")
    return file.getvalue()


def write(path, values, labels, *, names=NAMES, columns=("image", "label"), images=None, more=None):
    """A file of images of one value each; with the metadata of a ClassLabel, unless there are no `names`."""
    images = [png(value) for value in values] if images is None else images
    image = pa.array([{"bytes": content, "path": None} for content in images], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    arrays = {"id": pa.array(range(len(images))), columns[0]: image, columns[1]: pa.array(labels)}
    table = pa.table(arrays | (more or {}))
    if names is not None:
        features = {columns[0]: {"_type": "Image"}, columns[1]: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)
    return path


def refused(path, match, error=DataError, **options):
    with pytest.raises(error, match=match) as caught:
        load_dataset(path, **options)
    assert len(str(caught.value)) <= 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize("columns", [("image", "label"), ("img", "fine_label"), ("photo", "kind")])
@pytest.mark.parametrize("inside", ["", "data"])
def test_a_folder_of_shards(tmp_path, columns, inside):
    """Numbers have the names of the metadata, also where a class has no image to test on."""
    values = list(range(20))
    write(tmp_path / inside / "train-00000-of-00002.parquet", values[:12], [i % 3 for i in range(12)], columns=columns)
    write(tmp_path / inside / "train-00001-of-00002.parquet", values[12:], [i % 3 for i in range(8)], columns=columns)
    write(tmp_path / inside / "test-00000-of-00001.parquet", [100, 101], [0, 2], columns=columns)
    write(tmp_path / inside / "validation-00000-of-00001.parquet", [102], [1], columns=columns)
    told = []
    data = load_dataset(tmp_path, reading=lambda *call: told.append(call))
    assert data.class_names == ("zebra", "ant", "cow") and data.image_shape == (1, 3, 4) and data.note is None
    assert data.train_images[:, 0, 0, 0].tolist() == values and data.test_images[:, 0, 2, 3].tolist() == [100, 101]
    assert data.train_labels.tolist() == [i % 3 for i in range(12)] + [i % 3 for i in range(8)]
    assert data.test_labels.tolist() == [0, 2] and data.validation_labels.tolist() == [1] and told[-1] == ("images", 23, 23)


def test_a_folder_for_each_part(tmp_path):
    for part, values in (("train", range(6)), ("validation", [50, 51]), ("test", [60, 61, 62])):
        write(tmp_path / part / "0000.parquet", values, [0, 1, 2][: len(values)] * (2 if part == "train" else 1))
    data = load_dataset(tmp_path)
    assert data.train_images[:, 0, 0, 0].tolist() == list(range(6)) and data.test_images[:, 0, 0, 0].tolist() == [60, 61, 62]
    assert data.validation_images[:, 0, 0, 0].tolist() == [50, 51]


def test_one_file_is_split(tmp_path):
    path = write(tmp_path / "all.parquet", range(30), [i % 3 for i in range(30)])
    for given in (path, tmp_path):
        data = load_dataset(given)
        assert (len(data.train_images), len(data.test_images)) == (24, 6) and data.class_names == tuple(NAMES)
        everything = np.concatenate([data.train_images, data.test_images])[:, 0, 0, 0]
        labels = np.concatenate([data.train_labels, data.test_labels])
        np.testing.assert_array_equal(labels, everything % 3)


def test_validation_alone_is_tested_on_and_that_is_said(tmp_path):
    write(tmp_path / "train.parquet", range(6), [0, 1] * 3)
    write(tmp_path / "valid.parquet", [9, 9], [0, 1])
    data = load_dataset(tmp_path)
    assert len(data.test_images) == 2 and data.validation_images is None and "no test part" in data.note


def test_other_writers(tmp_path):
    """Words for classes, plain bytes for images, no metadata or such as nobody understands."""
    image = pa.array([png(value) for value in range(8)], pa.binary())
    table = pa.table({"image": image, "label": ["b", "a"] * 4})
    for metadata in (None, {"huggingface": "no json"}, {"huggingface": "[1]"}, {"huggingface": '{"info": {"features": 3}}'}):
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
        data = load_dataset(tmp_path / "x.parquet")
        assert data.class_names == ("a", "b") and set(data.train_images[data.train_labels == 1, 0, 0, 0].tolist()) <= {0, 2, 4, 6}
    assert load_dataset(write(tmp_path / "y.parquet", range(8), [7, 9] * 4, names=None)).class_names == ("7", "9")
    assert load_dataset(write(tmp_path / "z.parquet", range(8), [0, 2] * 4)).class_names == ("zebra", "cow")


def test_sizes_and_colours(tmp_path):
    images = [png(5), png((1, 2, 3), (6, 6), "RGB"), png(7), png(8, (9, 4))]
    path = write(tmp_path / "x.parquet", [], [0, 1, 0, 1], images=images)
    refused(path, r"row 1: the image is 6 × 6 pixels .*, expected 3 × 4.*--image-size")
    data = load_dataset(path, image_size="2x3")
    assert data.image_shape == (3, 2, 3)
    everything = np.concatenate([data.train_images, data.test_images])[:, :, 0, 0].tolist()
    assert sorted(everything) == [[1, 2, 3], [5, 5, 5], [7, 7, 7], [8, 8, 8]]


def test_what_is_no_such_set(tmp_path):
    path = tmp_path / "x.parquet"
    for content in (b"", b"PAR1 oops", b"PAR1" + bytes(100) + b"PAR1"):
        path.write_bytes(content)
        refused(path, "cannot be read as a Parquet file")
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), path)
    refused(path, r"no column of images .image, img. among text, label")
    pq.write_table(pa.table({"image": [b""], "score": [0.5]}), path)
    refused(path, "no column of labels")
    refused(write(path, [], [], images=[]), "has no rows")
    refused(write(path, [], [0, 1], images=[png(1), b"no image"]), r"row 1 cannot be read as an image \(it is in none of the known")
    refused(write(path, [], [0, 1], images=[None, png(1)]), "row 0: the column 'image' contains no encoded image, but NoneType: embed")
    refused(write(path, [1, 2], [0.5, 1.5]), "row 0: the column 'label' contains 0.5, expected a class's number or name")
    refused(write(path, [1, 2], [[0], [1]]), r"contains \[0\], expected")
    whole = write(path, range(40), [0, 1] * 20).read_bytes()
    path.write_bytes(whole[:60] + bytes(200) + whole[260:])
    refused(path, "damaged after row|cannot be read")
    os.unlink(path)
    os.mkfifo(path)
    refused(path, "a pipe, not a regular file")


def test_without_pyarrow(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", [1, 2], [0, 1])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install -e ".*\[parquet\]"'):
        load_dataset(path)


def test_what_the_library_datasets_writes(tmp_path):
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets are not installed")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {}
    for split, count in (("train", 12), ("test", 6)):
        examples = [{"image": Image.new("L", (4, 3), value), "label": NAMES[value % 3]} for value in range(count)]
        rows[split] = [features.encode_example(example) for example in examples]
        pq.write_table(pa.Table.from_pylist(rows[split], features.arrow_schema), tmp_path / f"{split}-00000-of-00001.parquet")
    data = load_dataset(tmp_path)
    assert data.class_names == tuple(features["label"].names)
    for split, images, labels in (("train", data.train_images, data.train_labels), ("test", data.test_images, data.test_labels)):
        for row, image, label in zip(rows[split], images, labels, strict=True):
            decoded = features.decode_example(row)
            np.testing.assert_array_equal(np.asarray(decoded["image"]), image[0])
            assert decoded["label"] == label


# Large tables of pixels are read through pyarrow: the same numbers as NumPy's, or NumPy's own sentence.


@pytest.mark.parametrize("text", [b"1,2,3\n4,5.5,6\n", b'"1"," 2",3\n', b"1,2,3 \n\n4,5,6"])
def test_the_quick_reader_of_tables_gives_the_same(text):
    quick = tables._quickly(text, 3)
    expected = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.float32, ndmin=2, comments=None, quotechar='"')
    assert quick is not None and quick.dtype == np.float32
    np.testing.assert_array_equal(quick, expected)


@pytest.mark.parametrize("text", [b"1,2\n", b"1,2,\n", b"a,2,3\n", b"1,2,3\n1,2\n", b"1,2,3,4\n", b""])
def test_the_quick_reader_of_tables_leaves_errors_to_the_other(text):
    assert tables._quickly(text, 3) is None


@pytest.mark.parametrize("broken", [False, True])
def test_a_large_table(tmp_path, monkeypatch, broken):
    monkeypatch.setattr(tables, "MANY", 100)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16))
    rows = [",".join(map(str, [index % 2, *row])) for index, row in enumerate(pixels)]
    rows[7] += ",9" * broken
    (tmp_path / "x.csv").write_text("\n".join(["label," + ",".join(f"pixel{i}" for i in range(16)), *rows]))
    if broken:
        refused(tmp_path / "x.csv", "fix that row")
    else:
        data = load_dataset(tmp_path / "x.csv")
        everything = np.concatenate([data.train_images, data.test_images]).reshape(20, 16)
        labels = np.concatenate([data.train_labels, data.test_labels])
        read = sorted((int(label), *row) for label, row in zip(labels, everything.tolist(), strict=True))
        assert read == sorted((index % 2, *row) for index, row in enumerate(pixels.tolist()))
