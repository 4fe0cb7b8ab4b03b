import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from training.architectures import build
from training.errors import NotNumbers
from training.evaluate import evaluate, predictor, wilson_interval


def reading(answers: npt.NDArray[np.integer]):
    """Return a network that gives these answers for images whose first pixel is their index."""

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.eye(10, dtype=np.float32)[answers[images[:, 0, 0]]]

    return predict


@pytest.fixture
def images() -> npt.NDArray[np.uint8]:
    images = np.zeros((5, 28, 28), np.uint8)
    images[:, 0, 0] = range(5)
    return images


def test_right_answers_are_counted(images):
    result = evaluate(reading(np.array([3, 1, 4, 1, 5])), images, np.array([3, 1, 4, 7, 6], np.uint8))
    assert (result.correct, result.total, result.accuracy) == (3, 5, 0.6)
    assert result.misread.tolist() == [3, 4]
    assert result.answers.tolist() == [3, 1, 4, 1, 5]


def test_confusion_has_the_true_digit_in_its_row(images):
    confusion = evaluate(reading(np.array([3, 1, 4, 1, 5])), images, np.array([3, 1, 4, 7, 6])).confusion
    assert confusion[7, 1] == 1
    assert confusion[6, 5] == 1
    assert confusion.sum() == 5


@pytest.mark.parametrize("batch_size", [1, 2, 5, 1000])
def test_the_batch_size_changes_nothing(images, batch_size: int):
    labels = np.array([3, 1, 4, 7, 6])
    assert evaluate(reading(np.array([3, 1, 4, 1, 5])), images, labels, batch_size).correct == 3


@pytest.mark.parametrize(("correct", "total"), [(9876, 10000), (0, 7), (7, 7), (1, 2), (4999, 5000)])
def test_the_interval_is_that_of_scipy(correct: int, total: int):
    oracle = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize("total", [16, 21, 54])
def test_an_interval_lies_between_0_and_1_whatever_is_rounded(total: int):
    for correct in (0, total):
        low, high = wilson_interval(correct, total)
        assert 0 <= low < high <= 1


@pytest.mark.parametrize("labels", [np.zeros(4, np.int64), np.zeros(6, np.int64)])
def test_another_number_of_labels_is_refused(images, labels):
    with pytest.raises(ValueError, match=f"got 5 and {len(labels)}"):
        evaluate(reading(np.arange(5)), images, labels)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="got 0 and 0"):
        evaluate(reading(np.arange(5)), np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.int64))


def test_scores_that_are_not_numbers_are_refused_and_not_counted_as_zeros(images):
    def broken(images):
        return np.where(images[:, :1, 0] == 2, np.nan, np.eye(10, dtype=np.float32)[0])

    with pytest.raises(NotNumbers, match="1 of 5 images"):
        evaluate(broken, images, np.zeros(5, np.int64))


def test_a_network_is_run_in_evaluation_mode_and_left_as_it_was(images):
    model = nn.Sequential(build("mnist-cnn"), nn.Dropout(0.5)).train()
    predict = predictor(model)
    assert np.array_equal(predict(images), predict(images))
    assert model.training
    assert torch.equal(torch.from_numpy(predict(images)), model.eval()(torch.from_numpy(images)).detach())
    predict(images)
    assert not model.training


def test_images_that_cannot_be_written_to_are_read(images):
    images.flags.writeable = False
    assert predictor(build("mnist-mlp"))(images).shape == (5, 10)
