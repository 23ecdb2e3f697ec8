import numpy as np
import pytest
from sklearn.datasets import load_digits

from kbptt import tasks


def test_digits_are_scikit_learns_read_row_by_row():
    images = {image.astype(np.float32).tobytes(): y for image, y in zip(*load(), strict=True)}
    data = tasks.get("digits").data(0)
    for x, y in (data.train, data.validation, data.test):
        assert x.shape[1:] == (64, 1)
        for sequence, answer in zip(x[:, :, 0], y, strict=True):
            assert images[sequence.tobytes()] == answer


def load():
    digits = load_digits()
    return digits.data.astype(np.float32) / 16, digits.target


def test_digits_are_split_without_overlap_and_differently_for_each_seed():
    splits = [
        {x.tobytes() for x in split[0]} for split in vars(tasks.get("digits").data(0)).values()
    ]
    assert [len(s) for s in splits] == [1197, 300, 300]
    assert not splits[0] & splits[1] and not splits[0] & splits[2] and not splits[1] & splits[2]
    other = {x.tobytes() for x in tasks.get("digits").data(1).test[0]}
    assert 0 < len(other & splits[2]) < 150


def test_digits_can_keep_their_test_images_for_all_seeds():
    """No image that any seed is tested on is one that another seed trains on or validates with."""
    task = tasks.get("digits", fixed_test=True, sizes=(1000, 200, 300))
    splits = [
        [{x.tobytes() for x in split[0]} for split in vars(task.data(seed)).values()]
        for seed in (0, 1, 10**9)
    ]
    assert [[len(part) for part in seed] for seed in splits] == [[1000, 200, 300]] * 3
    (test,) = {frozenset(seed[2]) for seed in splits}
    assert not any(test & (seed[0] | seed[1]) for seed in splits)
    assert not splits[0][0] & splits[0][1] and splits[0][0] != splits[1][0]
    with pytest.raises(ValueError, match="fixed_test"):
        tasks.get("digits", fixed_test="yes")


def test_permuted_digits_use_one_order_for_all_seeds():
    plain, permuted = tasks.get("digits"), tasks.get("digits", permuted=True)
    order = None
    for seed in (0, 7):
        x, shuffled = plain.data(seed).train[0], permuted.data(seed).train[0]
        np.testing.assert_array_equal(np.sort(x, axis=1), np.sort(shuffled, axis=1))
        # A pixel is recognized by its values in all images, unless it is blank in (nearly) all.
        columns = {x[:, t].tobytes(): t for t in range(64) if x[:, t].mean() > 0.1}
        found = [columns.get(shuffled[:, t].tobytes()) for t in range(64)]
        assert len(set(found)) > 40 and order in (None, found)
        known = [t for t in found if t is not None]
        assert known != sorted(known)
        order = found


def test_blank_and_repeat_move_the_pixels_into_the_past():
    plain = tasks.get("digits").data(0).train[0]
    task = tasks.get("digits", blank=36, repeat=2)
    assert task.length == 164
    x = task.data(0).train[0]
    np.testing.assert_array_equal(x[:, 0:128:2], plain)
    np.testing.assert_array_equal(x[:, 1:128:2], plain)
    assert not x[:, 128:].any()


def test_digits_baseline_is_the_most_common_digit():
    assert np.bincount(load()[1]).max() / 1797 == tasks.get("digits").baseline


@pytest.fixture
def mnist_file(tmp_path, monkeypatch):
    """A file of MNIST's layout and size limits, in Keras's cache, with images of our own."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = tmp_path / "datasets" / "mnist.npz"
    path.parent.mkdir()
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 50), ("test", 20)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"y_{part}"] = generator.integers(0, 10, count, np.uint8)
    np.savez(path, **arrays)
    return path, arrays


def test_mnist_is_read_from_the_cache(mnist_file):
    _, arrays = mnist_file
    task = tasks.get("mnist", sizes=(30, 20, 20))
    data = task.data(0)
    assert task.length == 784
    np.testing.assert_allclose(
        data.test[0][:, :, 0], arrays["x_test"].reshape(20, 784) / 255, rtol=1e-6
    )
    np.testing.assert_array_equal(data.test[1], arrays["y_test"])
    seen = np.concatenate([data.train[0], data.validation[0]])
    assert len({x.tobytes() for x in seen}) == 50


def test_mnist_is_never_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"no copy of MNIST at .* does not download it.*`path`"):
        tasks.get("mnist")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"is not Keras's mnist\.npz: .*x_train"):
        tasks.get("mnist", path=str(tmp_path / "other.npz")).data(0)
    for content in (b"", b"no zip file", b"PK\x05\x06" + 18 * b"\0"):
        (tmp_path / "other.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is not Keras"):
            tasks.get("mnist", path=str(tmp_path / "other.npz")).data(0)


def test_a_damaged_file_of_images_is_refused_in_a_sentence(mnist_file):
    path, arrays = mnist_file

    def error(sizes=(30, 20, 20)):
        with pytest.raises(ValueError) as caught:
            tasks.get("mnist", sizes=sizes).data(0)
        return str(caught.value)

    assert "has 50 images in x_train" in error((30, 21, 20))
    assert "has 20 images in x_test" in error((30, 20, 21))
    np.savez(path, **{**arrays, "x_test": arrays["x_test"][:, 1:]})
    assert "found x_test (20, 27, 28) and y_test (20,)" in error()
    np.savez(path, **{**arrays, "y_train": arrays["y_train"][1:]})
    assert "found x_train (50, 28, 28) and y_train (49,)" in error()
    np.savez(path, **{**arrays, "y_test": arrays["y_test"] + 5})
    assert "is not Keras's mnist.npz" in error()
    np.savez_compressed(path, **arrays)
    content = path.read_bytes()
    for start in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:start] + b"\x55" * 50 + content[start + 50 :])
        assert "is not Keras's mnist.npz" in error()
