import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import DATA, Digits
from training import mnist
from training.errors import DataMissing
from training.mnist import Mnist, fetch, load, split
from training.mnist_sources import SourceFailed

CONTENT = {name: f"the content of {name}".encode() for name in mnist.SHA256}


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Let four short files stand for MNIST."""
    for name, content in CONTENT.items():
        monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(content).hexdigest())


class Place:
    """A source that delivers what it is given, or fails."""

    def __init__(self, name: str, contents: dict[str, bytes] | None):
        self.name, self.contents, self.asked = name, contents, []

    def deliver(self, name: str, scratch: Path) -> bytes:
        self.asked.append(name)
        if self.contents is None:
            raise SourceFailed(f"{name}: nobody there")
        return self.contents[name]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.usefixtures("tiny")
def test_all_files_are_fetched(tmp_path: Path):
    assert fetch(tmp_path / "new" / "data", [Place("here", CONTENT)]) == tuple(CONTENT)
    assert files(tmp_path / "new" / "data") == CONTENT


@pytest.mark.usefixtures("tiny")
def test_files_that_are_right_are_not_fetched_again(tmp_path: Path):
    fetch(tmp_path, [Place("here", CONTENT)])
    place = Place("here", CONTENT)
    assert fetch(tmp_path, [place]) == ()
    assert place.asked == []


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda _: b"", lambda content: content + b"x"])
def test_a_truncated_or_wrong_file_is_fetched_again(tmp_path: Path, damage):
    fetch(tmp_path, [Place("here", CONTENT)])
    name = "t10k-images-idx3-ubyte"
    (tmp_path / name).write_bytes(damage(CONTENT[name]))
    assert fetch(tmp_path, [Place("here", CONTENT)]) == (name,)
    assert files(tmp_path) == CONTENT


@pytest.mark.usefixtures("tiny")
def test_a_place_that_fails_is_asked_once_and_the_next_one_delivers(tmp_path: Path):
    dead, alive = Place("dead", None), Place("alive", CONTENT)
    fetch(tmp_path, [dead, alive])
    assert dead.asked == ["train-images-idx3-ubyte"]
    assert files(tmp_path) == CONTENT


@pytest.mark.usefixtures("tiny")
def test_wrong_content_is_never_written(tmp_path: Path):
    forged = CONTENT | {"train-labels-idx1-ubyte": b"forged"}
    with pytest.raises(DataMissing, match=r"forger: train-labels-idx1-ubyte: 6 bytes with SHA-256 [0-9a-f]{64}"):
        fetch(tmp_path, [Place("forger", forged)])
    assert set(files(tmp_path)) == {"train-images-idx3-ubyte"}
    assert fetch(tmp_path, [Place("forger", forged), Place("honest", CONTENT)])[0] == "train-labels-idx1-ubyte"
    assert files(tmp_path) == CONTENT


def test_with_no_source_the_error_says_how_to_do_it_by_hand(tmp_path: Path):
    with pytest.raises(DataMissing) as caught:
        fetch(tmp_path, [Place("one", None), Place("two", None)])
    message = str(caught.value)
    assert "one: train-images-idx3-ubyte: nobody there" in message
    assert "two: train-images-idx3-ubyte: nobody there" in message
    assert str(tmp_path.resolve()) in message
    assert all(f"{name}  {sha256}" in message for name, sha256 in mnist.SHA256.items())


@pytest.mark.usefixtures("tiny")
def test_two_at_once_fetch_each_file_once(tmp_path: Path):
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Place):
        def deliver(self, name: str, scratch: Path) -> bytes:
            entered.set()
            assert go_on.wait(30)
            return super().deliver(name, scratch)

    slow, second = Slow("slow", CONTENT), Place("second", CONTENT)
    first_thread = threading.Thread(target=fetch, args=(tmp_path, [slow]))
    first_thread.start()
    assert entered.wait(30)
    second_thread = threading.Thread(target=fetch, args=(tmp_path, [second]))
    second_thread.start()
    go_on.set()
    first_thread.join(30)
    second_thread.join(30)
    assert slow.asked == list(CONTENT)
    assert second.asked == []
    assert files(tmp_path) == CONTENT


@pytest.mark.usefixtures("tiny")
def test_fetched_files_can_be_read_by_whoever_the_umask_allows(tmp_path: Path):
    before = os.umask(0o022)
    try:
        fetch(tmp_path, [Place("here", CONTENT)])
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.name in CONTENT} == {0o644}


def test_the_data_are_tensors_of_raw_pixels(real_mnist: Mnist):
    assert real_mnist.train_images.shape == (60000, 28, 28)
    assert real_mnist.test_images.shape == (10000, 28, 28)
    assert real_mnist.train_images.dtype == torch.uint8
    assert real_mnist.train_labels.dtype == torch.int64
    # The first labels of both parts, as every copy of MNIST shows them.
    assert real_mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert real_mnist.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_the_test_set_is_that_of_an_independent_reader(real_mnist: Mnist, test_digits: Digits):
    assert np.array_equal(real_mnist.test_images.numpy(), test_digits[0])
    assert np.array_equal(real_mnist.test_labels.numpy(), test_digits[1])


def test_mean_and_deviation_are_those_that_the_networks_subtract(real_mnist: Mnist):
    pixels = real_mnist.train_images.double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)


def test_a_missing_file_is_named_with_the_command(tmp_path: Path):
    with pytest.raises(DataMissing, match=rf"train-images-idx3-ubyte cannot be read.*fetch-data --data {tmp_path}"):
        load(tmp_path)


@pytest.mark.usefixtures("real_mnist")
def test_a_truncated_file_is_refused_at_loading(tmp_path: Path):
    for name in mnist.SHA256:
        (tmp_path / name).symlink_to((DATA / name).resolve())
    cut = tmp_path / "t10k-labels-idx1-ubyte"
    cut.unlink()
    cut.write_bytes((DATA / cut.name).read_bytes()[:-1])
    with pytest.raises(DataMissing, match=r"t10k-labels-idx1-ubyte is not MNIST's: 10,007 bytes with SHA-256"):
        load(tmp_path)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=200), st.data())
def test_a_split_takes_every_image_once_and_every_digit_in_its_share(labels: list[int], data):
    size = data.draw(st.integers(0, len(labels) - 1))
    tensor = torch.tensor(labels)
    parts = split(tensor, size)
    assert len(parts.validation) == size
    assert sorted([*parts.train.tolist(), *parts.validation.tolist()]) == list(range(len(labels)))
    for digit in range(10):
        share = size * labels.count(digit) / len(labels)
        assert abs((tensor[parts.validation] == digit).sum().item() - share) <= 1


def test_a_split_depends_on_its_seed_alone():
    labels = torch.arange(1000) % 10
    first, again, other = split(labels, 100), split(labels, 100), split(labels, 100, seed=1)
    assert torch.equal(first.validation, again.validation)
    assert not torch.equal(first.validation, other.validation)
