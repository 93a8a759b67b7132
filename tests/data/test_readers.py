"""Every reader, on small files written here in the standard formats, and on damaged ones."""

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseprune import data
from sparseprune.data._unpickle import read_pickle

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels(count: int, classes: int = 10) -> np.ndarray:
    return np.arange(count, dtype=np.uint8) % classes


def write_mnist(folder: Path, *, zipped: bool = True, dot: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    join = "." if dot else "-"
    for prefix, count in (("train", 30), ("t10k", 20)):
        for kind, array in ((f"images{join}idx3", images(count, 5, 5)), (f"labels{join}idx1", labels(count))):
            name = f"{prefix}-{kind}-ubyte"
            content = idx(array)
            (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)


def write_cifar10(root: Path, *, protocol: int = 2) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        content = {b"labels": labels(10).tolist(), b"data": images(10, 3072), b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return folder


def test_digits_are_the_bundled_ones_in_a_fixed_split():
    digits = data.load("digits")
    assert digits.input_shape == (1, 8, 8) and digits.classes == 10
    assert (len(digits.train_targets), len(digits.test_targets)) == (1437, 360)
    assert digits.train_pixels.dtype == torch.uint8 and int(digits.train_pixels.max()) == 16
    assert digits.train_inputs.dtype == torch.float32 and digits.train_targets.dtype == torch.int64
    torch.testing.assert_close(digits.train_inputs.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(digits.train_inputs.std(correction=0), torch.tensor(1.0))
    assert torch.equal(digits.train_pixels, data.load("digits").train_pixels)


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "raw", "."])
@pytest.mark.parametrize(("zipped", "dot"), [(True, False), (False, False), (False, True)])
def test_mnist_in_the_usual_layouts(tmp_path, place, zipped, dot):
    write_mnist(tmp_path / place, zipped=zipped, dot=dot)
    mnist = data.load("mnist", tmp_path)
    assert torch.equal(mnist.train_pixels[:, 0], torch.from_numpy(images(30, 5, 5)))
    assert torch.equal(mnist.test_pixels[:, 0], torch.from_numpy(images(20, 5, 5)))
    assert mnist.train_targets.tolist() == labels(30).tolist()


def test_fashion_mnist_does_not_take_mnists_folder(tmp_path):
    write_mnist(tmp_path / "mnist")
    with pytest.raises(FileNotFoundError, match=r"fashion-mnist needs train-images.*zalandoresearch"):
        data.load("fashion-mnist", tmp_path)
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    assert data.load("fashion-mnist", tmp_path).name == "fashion-mnist"


def test_statistics_are_those_of_the_training_pixels(tmp_path):
    write_cifar10(tmp_path)
    cifar = data.load("cifar10", tmp_path)
    pixels = cifar.train_pixels.double()
    torch.testing.assert_close(cifar.mean, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(cifar.std, pixels.std((0, 2, 3), correction=0).float())
    expected = (cifar.test_pixels.float() - cifar.mean[:, None, None]) / cifar.std[:, None, None]
    torch.testing.assert_close(cifar.test_inputs, expected)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_cifar10_under_every_pickle_protocol(tmp_path, protocol):
    write_cifar10(tmp_path, protocol=protocol)
    cifar = data.load("cifar10", tmp_path)
    assert cifar.input_shape == (3, 32, 32) and len(cifar.train_targets) == 50
    assert torch.equal(cifar.test_pixels.flatten(1), torch.from_numpy(images(10, 3072)))


def test_cifar10_written_by_python_2(tmp_path):
    """Protocol 2 of Python 2: byte strings (opcode U, T) where Python 3 has text, and numpy.core in the names."""
    folder = write_cifar10(tmp_path)
    pixels = images(1, 3072)
    raw = b"T" + struct.pack("<i", 3072) + pixels.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + raw + b"tb"
    )
    (folder / "test_batch").write_bytes(b"\x80\x02}(U\x06labels](K\x07eU\x04data" + array + b"u.")
    cifar = data.load("cifar10", folder)
    assert cifar.test_targets.tolist() == [7]
    assert torch.equal(cifar.test_pixels.flatten(1), torch.from_numpy(pixels))


def test_cifar100_takes_the_fine_labels(tmp_path):
    folder = tmp_path / "cifar100" / "cifar-100-python"
    folder.mkdir(parents=True)
    for split, count in (("train", 120), ("test", 20)):
        content = {
            "data": images(count, 3072),
            "fine_labels": labels(count, 100).tolist(),
            "coarse_labels": [0] * count,
        }
        (folder / split).write_bytes(pickle.dumps(content))
    cifar = data.load("cifar100", tmp_path)
    assert cifar.classes == 100 and cifar.train_targets.tolist() == labels(120, 100).tolist()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch never",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({b"data": Malicious()}), r"posix\.system is not allowed"),
        (b"cbuiltins\neval\n(U\x011tR.", r"builtins\.eval is not allowed"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "the codec 'rot13' is not allowed"),
        (pickle.dumps(np.array([object], dtype=object)), "not a plain number"),
        (pickle.dumps(np.zeros(3, np.dtype([("a", "u1")]))), "not a plain number"),
        (pickle.dumps(torch.zeros(1)), "is not allowed"),
        (pickle.dumps({b"data": images(10, 3072)})[:200], "truncated|ran out|exhausted"),
        (b"", "Ran out of input"),
    ],
)
def test_the_unpickler_builds_plain_arrays_and_nothing_else(tmp_path, monkeypatch, content, reason):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?s)load: {path} is not a readable pickle.*({reason})"):
        read_pickle(path)
    assert not (tmp_path / "never").exists()


def test_a_refused_pickle_stops_the_reader(tmp_path):
    folder = write_cifar10(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Malicious()}))
    with pytest.raises(ValueError, match=r"data_batch_3 .*posix\.system is not allowed"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "must hold a dict, got list"),
        ({b"data": images(10, 3072)}, "must have the entry 'labels'"),
        ({b"data": images(10, 12), b"labels": [0] * 10}, r"must be uint8 \[N, 3072\], got uint8 \(10, 12\)"),
        ({b"data": images(10, 3072), b"labels": [0] * 9}, "has 10 images but 9 labels"),
        ({b"data": images(10, 3072), b"labels": [0] * 9 + [10]}, r"labels must be in \[0, 10\), got 10"),
        ({b"data": images(10, 3072), b"labels": None}, "test_batch's labels must be a list of integers"),
        ({b"data": images(10, 3072), b"labels": [b"cat"] * 10}, "must be a list of integers"),
        ({b"data": images(10, 3072), b"labels": [0.5] * 10}, "must be a list of integers"),
        ({b"data": images(10, 3072), b"labels": [[1]] * 10}, "must be a list of integers"),
        ({b"data": images(10, 3072)[:0], b"labels": []}, "test set is empty"),
    ],
)
def test_a_wrong_cifar_batch_is_named(tmp_path, content, reason):
    folder = write_cifar10(tmp_path)
    (folder / "test_batch").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=reason):
        data.load("cifar10", tmp_path)


def write_tiny(root: Path, classes: int = 3) -> Path:
    from PIL import Image

    folder = root / "tiny-imagenet-200"
    wnids = [f"n{k:08d}" for k in range(classes)]
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(wnids))
    lines = []
    for k, wnid in enumerate(wnids):
        (folder / "train" / wnid / "images").mkdir(parents=True)
        for i in range(2):
            grey = Image.fromarray(np.full((64, 64), 40 * k, np.uint8))
            picture = grey if i else grey.convert("RGB")
            picture.save(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
        grey.save(folder / "val" / "images" / f"val_{k}.JPEG")
        lines.append(f"val_{k}.JPEG\t{wnid}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def test_tiny_imagenet_folders(tmp_path):
    write_tiny(tmp_path)
    tiny = data.load("tiny-imagenet", tmp_path)
    assert tiny.input_shape == (3, 64, 64) and tiny.classes == 3
    assert tiny.train_targets.tolist() == [0, 0, 1, 1, 2, 2] and tiny.test_targets.tolist() == [0, 1, 2]
    assert tiny.test_pixels[:, :, 0, 0].tolist() == [[0] * 3, [40] * 3, [80] * 3]


def test_tiny_imagenet_damage_is_named(tmp_path):
    from PIL import Image

    folder = write_tiny(tmp_path)
    picture = folder / "train" / "n00000001" / "images" / "n00000001_0.JPEG"
    Image.new("RGB", (32, 64)).save(picture)
    with pytest.raises(ValueError, match=r"n00000001_0.JPEG must be 64 x 64, got 32 x 64"):
        data.load("tiny-imagenet", tmp_path)
    picture.write_bytes(b"no jpeg")
    with pytest.raises(ValueError, match=r"n00000001_0.JPEG is not a readable JPEG"):
        data.load("tiny-imagenet", tmp_path)
    Image.new("RGB", (64, 64)).save(picture)
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn9\n")
    with pytest.raises(ValueError, match=r"val_annotations.txt must hold lines 'file<TAB>class', got 'val_0"):
        data.load("tiny-imagenet", tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (idx(images(30, 5, 5))[:-1], "must hold 750 bytes after its header"),
        (idx(images(30, 5, 5)) + b"x", "must hold 750 bytes after its header"),
        (idx(images(30, 5, 5))[:10], "truncated inside its header"),
        (b"\x00\x00\x0d\x03" + bytes(20), "must be an idx file of unsigned bytes"),
        (b"", "must be an idx file of unsigned bytes"),
        (gzip.compress(idx(images(30, 5, 5)))[:-20], "damaged or truncated gzip"),
        (idx(labels(30)), "must have 3 dimension"),
        (idx(images(29, 5, 5)), "has 29 images but 30 labels"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content, reason):
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        data.load("mnist", tmp_path)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"load: name must be one of digits, mnist.*got 'imagenet'"):
        data.load("imagenet")
    with pytest.raises(ValueError, match=r"mnist is read from files; pass data_dir"):
        data.load("mnist")
    with pytest.raises(FileNotFoundError, match=r"data_dir must be an existing folder"):
        data.load("mnist", tmp_path / "nowhere")
    for name, source in (("mnist", "idx"), ("cifar10", "cifar-10-python"), ("cifar100", "cifar-100-python")):
        with pytest.raises(FileNotFoundError, match=rf"{name} needs .* in one of {tmp_path}.*get .*{source}"):
            data.load(name, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tiny-imagenet needs tiny-imagenet-200/wnids.txt"):
        data.load("tiny-imagenet", tmp_path)
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        data.load("mnist", tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real data beside the checkout")
@pytest.mark.parametrize(("name", "mean"), [("mnist", 0.1307), ("fashion-mnist", 0.2860)])
def test_the_real_files(name, mean):
    real = data.load(name, SHARED)
    assert real.input_shape == (1, 28, 28) and (len(real.train_targets), len(real.test_targets)) == (60_000, 10_000)
    assert float(real.mean / 255) == pytest.approx(mean, abs=1e-4)
    assert real.test_targets.bincount().sum() == 10_000 and real.train_targets.unique().tolist() == list(range(10))


def test_normal_training_data_has_the_moments_and_no_image():
    digits = data.load("digits")
    random = digits.normal(3)
    assert random.name not in ("digits", digits.normal(4).name), "else trainings on them would be taken for the same"
    assert random.train_pixels.shape == digits.train_pixels.shape and random.test_pixels is digits.test_pixels
    inputs = random.train_inputs.double()
    count = inputs.numel()
    assert abs(inputs.mean()) < 5 / count**0.5 and abs(inputs.std() - 1) < 5 / (2 * count) ** 0.5
    counts = random.train_targets.bincount(minlength=10)
    expected = len(digits.train_targets) / 10
    assert ((counts - expected).square() / expected).sum() < 40  # chi-square, 9 degrees
    assert torch.equal(digits.normal(3).train_pixels, random.train_pixels)
    assert not torch.equal(digits.normal(4).train_pixels, random.train_pixels)
