import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from serving.errors import ServingError
from serving.offline.engine import TASKS_PER_WORKER, score_locally
from serving.offline.items import Items
from serving.runtime import OnnxModel
from tests.serving.offline.conftest import Score, idx_bytes


@dataclass
class Numbered:
    number: int

    def decode(self) -> Items:
        return Items(
            np.array([self.number]), "s", [str(self.number)], np.zeros((1, 28, 28), np.uint8), np.array([-1], np.int8)
        )


def as_batch(items: Items) -> pa.RecordBatch:
    return pa.record_batch({"number": items.ordinals})


def numbers(batches: Iterator[pa.RecordBatch]) -> list[int]:
    return [batch.column("number")[0].as_py() for batch in batches]


def test_results_come_in_order_whichever_task_ends_first():
    second_done = threading.Event()

    def score(items: Items) -> pa.RecordBatch:
        if items.names == ["1"]:
            second_done.set()
        elif items.names == ["0"]:
            assert second_done.wait(30)
        return as_batch(items)

    assert numbers(score_locally(map(Numbered, range(50)), score, 2)) == list(range(50))


@pytest.mark.parametrize("workers", [1, 3])
def test_tasks_are_read_a_few_ahead_only(workers: int):
    read = 0

    def tasks() -> Iterator[Numbered]:
        nonlocal read
        for read in range(1000):
            yield Numbered(read)

    batches = score_locally(tasks(), as_batch, workers)
    for number in range(5):
        assert numbers(iter([next(batches)])) == [number]
        assert read <= number + TASKS_PER_WORKER * workers
    batches.close()


def test_what_fails_in_a_worker_stops_the_run():
    def score(items: Items) -> pa.RecordBatch:
        if items.names == ["7"]:
            raise ServingError("the model failed")
        return as_batch(items)

    batches = score_locally(map(Numbered, range(100)), score, 2)
    with pytest.raises(ServingError, match="the model failed"):
        numbers(batches)


def test_a_model_that_fails_stops_the_run_and_the_rest_can_be_resumed(
    score: Score, test_digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "idx"
    path.write_bytes(idx_bytes(test_digits[0][:5000]))
    whole = score(path, output=tmp_path / "whole.parquet")
    original, calls = OnnxModel.run, 0

    def failing(self: OnnxModel, images):
        nonlocal calls
        calls += 1
        if calls == 40:
            raise ServingError("the model failed on uint8 (64, 28, 28)")
        return original(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(OnnxModel, "run", failing)
        scored = score(path, "--workers", 1)
    assert (scored.code, scored.stderr) == (1, "error: the model failed on uint8 (64, 28, 28)\n")
    resumed = score(path, "--resume")
    assert resumed.summary["earlier_rows"] == 2048
    assert resumed.rows == whole.rows
