import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from serving.errors import InvalidInput, NotReady, ServingError, TooLarge, UnreadablePicture
from serving.manifest import Manifest
from serving.protocol import outputs
from serving.protocol.inference import Inference
from serving.protocol.messages import Images, InferenceRequest
from serving.protocol.outputs import ALL, choose
from serving.runtime import Outputs
from tests.serving.fakes import FakeClock, FakeModel, numbered

# The clock of these tests says 1000.
DEADLINE = 1010.0


@dataclass
class Recorder:
    """A model that remembers what it was asked."""

    manifest: Manifest = field(default_factory=lambda: FakeModel().manifest)
    name: str = "fake"
    version: str = "3"
    images: Images | None = None
    deadline: float | None = None

    async def infer(self, images: Images, deadline: float | None = None) -> Outputs:
        self.images, self.deadline = images, deadline
        return FakeModel().runtime.run(images)


@dataclass
class FakePicture:
    image: Images
    blank: bool = False


@dataclass
class FakePreparer:
    """Gives the results it was made with."""

    results: list[FakePicture | ServingError] = field(default_factory=list)
    deadline: float | None = None

    async def prepare(self, pictures: object, deadline: float) -> list[FakePicture | ServingError]:
        self.deadline = deadline
        return self.results


def inference(*results: FakePicture | ServingError) -> Inference:
    return Inference(FakePreparer(list(results)).prepare, clock=FakeClock())


async def test_the_answer_names_the_model_and_keeps_the_id():
    response = await inference().run(Recorder(), InferenceRequest(numbered(1, 2), ALL, "mine"), DEADLINE)
    assert (response.model_name, response.model_version, response.id) == ("fake", "3", "mine")
    assert response.outputs[0].values[:, 0].tolist() == [1, 2]


async def test_labels_come_from_the_model():
    request = InferenceRequest(numbered(7), choose([("probabilities", {"classification": 1})]))
    response = await inference().run(Recorder(), request, DEADLINE)
    assert response.outputs[0].values == [b"1.000000:7:7"]


async def test_many_labels_are_written_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch):
    threads, classify = set(), outputs._classify

    def noted(*args: Any) -> list[bytes]:
        threads.add(threading.get_ident())
        return classify(*args)

    monkeypatch.setattr(outputs, "_classify", noted)
    request = InferenceRequest(numbered(*[7] * 65), choose([("probabilities", {"classification": 10})]))
    response = await inference().run(Recorder(), request, time.monotonic() + 60)
    assert response.outputs[0].values[::10] == [b"1.000000:7:7"] * 65
    assert threads.isdisjoint({threading.get_ident()})


@pytest.mark.parametrize(("asked_s", "deadline"), [(None, DEADLINE), (99.0, DEADLINE), (2.0, 1002.0)])
async def test_a_request_may_ask_for_an_earlier_deadline(asked_s: float, deadline: float):
    model = Recorder()
    request = InferenceRequest(numbered(1), ALL, timeout_s=asked_s)
    await inference().run(model, request, DEADLINE)
    assert model.deadline == deadline


async def test_pictures_are_prepared_before_the_deadline_that_the_request_asks_for():
    preparer = FakePreparer([FakePicture(numbered(1)[0])])
    request = InferenceRequest([b"a"], ALL, timeout_s=2.0)
    await Inference(preparer.prepare, clock=FakeClock()).run(Recorder(), request, DEADLINE)
    assert preparer.deadline == 1002.0


async def test_pictures_are_prepared_in_their_order():
    model = Recorder()
    pictures = [FakePicture(image) for image in numbered(3, 1, 2)]
    response = await inference(*pictures).run(model, InferenceRequest([b"a", b"b", b"c"], ALL), DEADLINE)
    assert response.outputs[0].values[:, 0].tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("broken", "kind", "said"),
    [
        (UnreadablePicture("no picture"), InvalidInput, "element 1: no picture"),
        (TooLarge("too many pixels"), TooLarge, "element 1: too many pixels"),
        (NotReady("no memory"), NotReady, "element 1: no memory"),
        (FakePicture(numbered(0)[0], blank=True), InvalidInput, "element 1: the picture is blank"),
    ],
)
async def test_case_e07_an_error_names_the_element(
    broken: FakePicture | ServingError, kind: type[ServingError], said: str
):
    pictures = [FakePicture(numbered(1)[0]), broken, FakePicture(numbered(2)[0])]
    with pytest.raises(kind, match=said) as caught:
        await inference(*pictures).run(Recorder(), InferenceRequest([b"a", b"b", b"c"], ALL), DEADLINE)
    assert type(caught.value) is kind


async def test_case_c10_no_pictures_are_an_empty_batch():
    response = await inference().run(Recorder(), InferenceRequest([], ALL), DEADLINE)
    assert [output.shape for output in response.outputs] == [(0, 10), (0, 10)]
