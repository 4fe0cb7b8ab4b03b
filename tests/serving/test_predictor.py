import asyncio

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving.batching import MicroBatcher
from serving.drift import Drift
from serving.errors import DeadlineExceeded
from serving.metrics import Metrics
from serving.predictor import Prediction, Predictor
from serving.preprocess import Prepared
from tests.serving.fakes import FakeModel, FakeRun, numbered
from tests.serving.tiny_model import tiny_manifest


class World:
    def __init__(self, min_confidence: float = 0.5) -> None:
        self.registry = CollectorRegistry()
        acceptance = {"min_confidence": min_confidence, "chosen_on": "default"}
        self.model = FakeModel(manifest=tiny_manifest(b"model", "fake", 3, acceptance=acceptance))
        self.run: FakeRun = self.model.runtime.run
        metrics = Metrics(self.registry).of_model("fake", "3")
        batcher = MicroBatcher(self.run, max_batch_size=8, queue_size=100, observer=metrics)
        drift = Drift(self.model.manifest.reference, 100)
        self.predictor = Predictor(self.model, batcher, metrics, drift)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"mnist_{name}", {"model": "fake"} | labels)


def picture(number: int, *reasons: str, blank: bool = False) -> Prepared:
    return Prepared(numbered(number)[0], blank, "light_on_dark", None, (28, 28), reasons)


async def test_a_picture_gets_its_digit_confidence_and_probabilities():
    (found,) = await World().predictor.predict([picture(7)])
    assert found == Prediction(7, 1.0, [0.0] * 7 + [1.0, 0.0, 0.0], True, [])


async def test_a_blank_picture_has_no_digit_and_is_not_run():
    world = World()
    found = await world.predictor.predict([picture(1), picture(0, "blank", blank=True), picture(2)])
    assert [prediction.digit for prediction in found] == [1, None, 2]
    assert found[1] == Prediction(None, None, None, False, ["blank"])
    assert world.run.batches == [[1, 2]]
    assert world.value("refused_total", reason="blank") == 1


async def test_many_pictures_are_judged_in_turns_between_which_others_are_answered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.predictor.PIECE", 2)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    world, beside = World(), asyncio.ensure_future(others())
    pictures = [picture(number % 10, blank=number == 3) for number in range(9)]
    judged, conclude = [], world.predictor._conclude
    monkeypatch.setattr(world.predictor, "_conclude", lambda *args: judged.append(turns) or conclude(*args))
    found = await world.predictor.predict(pictures)
    beside.cancel()
    assert [each.digit for each in found] == [0, 1, 2, None, 4, 5, 6, 7, 8]
    assert len(judged) == len(set(judged)) == 5


async def test_only_blank_pictures_run_nothing():
    world = World()
    blank = [picture(0, blank=True)] * 2
    assert world.predictor.predict_now(blank) is None
    assert [each.reasons for each in await world.predictor.predict(blank)] == [["blank"]] * 2
    assert world.value("refused_total", reason="blank") == 2


async def test_reasons_of_the_picture_speak_against_its_prediction():
    world = World()
    (found,) = await world.predictor.predict([picture(4, "several_digits")])
    assert (found.digit, found.accepted, found.reasons) == (4, False, ["several_digits"])
    assert world.value("refused_total", reason="several_digits") == 1


async def test_predictions_and_confidences_are_counted():
    world = World()
    await world.predictor.infer(numbered(3, 13, 5))
    assert world.value("predictions_total", digit="3") == 2
    assert world.value("predictions_total", digit="5") == 1
    assert world.value("confidence_count") == 3
    assert world.value("batch_images_sum", version="3") == 3


async def test_what_comes_too_late_is_not_run_and_counts_as_failed():
    world = World()
    for late in (world.predictor.infer(numbered(3), 0.0), world.predictor.predict([picture(3)], 0.0)):
        with pytest.raises(DeadlineExceeded):
            await late
    assert world.run.batches == []
    assert world.value("inference_duration_seconds_count", version="3", result="failure") == 2


async def test_zero_images_are_fine():
    assert (await World().predictor.infer(numbered())).probabilities.shape == (0, 10)
    assert await World().predictor.predict([]) == []


async def test_drift_is_published_once_enough_was_seen():
    world = World()
    world.predictor.update_drift()
    assert world.value("drift_index", version="3", feature="digits") == 0
    await world.predictor.infer(numbered(*[1] * 100))
    assert world.value("confidence_count") == 100  # to collect is to write what was noted
    world.predictor.update_drift()
    assert world.value("drift_index", version="3", feature="digits") > 0.25


def test_a_predictor_says_what_it_runs():
    predictor = World().predictor
    assert (predictor.name, predictor.version, predictor.provider) == ("fake", "3", "CPUExecutionProvider")
    assert predictor.manifest.temperature == pytest.approx(1.0)
    assert np.isclose(predictor.manifest.acceptance.min_confidence, 0.5)
