"""The Ray engine: shards of tasks, each decoded and scored by whichever node is free; results in order.

Must not know: formats, the output.

Tasks of Ray and not a pipeline of Ray Data: the rows go to the journal of the run as they come, task by task and in
order, so that a run goes on where it was whichever engine began it. A shard whose node is lost runs again elsewhere; if
it is lost again and again, its pictures are decoded apart.
"""

import hashlib
import logging
import os
import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from serving.errors import ConfigurationError, ModelRejected, ServingError
from serving.manifest import MODEL_FILE_NAME, Acceptance
from serving.memory import keep_free
from serving.offline.apart import decode_apart
from serving.offline.items import Items, Task
from serving.offline.pictures import Entries
from serving.offline.rows import Scorer
from serving.repository import LoadedModel
from serving.runtime import Device, OnnxModel

logger = logging.getLogger(__name__)

# Tasks of one shard: 256 pictures or some thousand rows, beside which the milliseconds of a Ray task are few.
SHARD_TASKS = 8
# Shards in the hands of each processor of the cluster or waiting for it; bounds the memory.
SHARDS_PER_PROCESSOR = 3
# As long as Ray waits for one answer of a cluster.
CONNECT_S = 5.0
# Of a shard whose process or node was lost, before its own pictures are suspected.
RETRIES = 2
PLACEMENT = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
# Of a cluster on this machine: at times one of Ray's own processes never begins, and Ray gives up after 30 s.
START_ATTEMPTS = 3


@dataclass(frozen=True)
class Weights:
    """What a node needs to score: the model's bytes, when a result counts as known, where the model runs."""

    model: bytes
    acceptance: Acceptance
    device: Device

    @classmethod
    def of(cls, model: LoadedModel, device: Device) -> "Weights":
        """Return those of a model that passed its checks.

        Raises:
            ModelRejected: the file has changed since then.
        """
        data = (model.folder / MODEL_FILE_NAME).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != model.manifest.file.sha256:
            raise ModelRejected("SHA-256 of the model", digest, model.manifest.file.sha256)
        return cls(data, model.manifest.acceptance, device)


def score_shard(weights: Weights, tasks: list[Task], careful: bool = False) -> list[pa.RecordBatch]:
    """Return the rows of each task.

    Args:
        weights: of the model.
        tasks: decoded here.
        careful: a picture may end the process that decodes it.

    Raises:
        ServingError: itself and no subclass, since not every one of them can be sent between processes.
    """
    try:
        scorer = _scorer(weights.model, weights.acceptance.model_dump_json(), weights.device)
        return [scorer.score(_decode(task, careful)) for task in tasks]
    except ServingError as error:
        raise ServingError(str(error)) from None


def _decode(task: Task, careful: bool) -> Items:
    if not isinstance(task, Entries):
        return task.decode()
    return decode_apart(task) if careful else task.decode_or_end()


@lru_cache(maxsize=1)
def _scorer(model: bytes, acceptance: str, device: Device) -> Scorer:
    """Return the scorer of this process; opening a model takes longer than a shard."""
    keep_free()
    return Scorer(OnnxModel(model, device, threads=1).run, Acceptance.model_validate_json(acceptance))


def score_on_ray(
    tasks: Iterable[Task], weights: Weights, address: str | None, workers: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of each task, in the order of the tasks.

    Args:
        tasks: read in this process, a few shards ahead; files that they name must be there on every node.
        weights: go to each node once.
        address: of a running cluster, or None to start one here that ends with the run.
        workers: processors of the one that is started here, >= 1.

    Raises:
        ConfigurationError: no cluster answers.
        ModuleNotFoundError: Ray is not installed.
        ServingError: a shard failed for another reason than the loss of its node.
    """
    with _connected(address, workers) as ray:
        try:
            yield from _in_order(ray, iter(tasks), ray.put(weights))
        except ray.exceptions.RayTaskError as error:
            raise _told(error.cause) from error
        except ray.exceptions.RayError as error:
            raise ServingError(f"the Ray cluster failed: {type(error).__name__}") from error


def _told(cause: Exception) -> ServingError:
    return cause if isinstance(cause, ServingError) else ServingError(f"a shard failed: {type(cause).__name__}")


def _in_order(ray: Any, tasks: Iterator[Task], weights: Any) -> Iterator[pa.RecordBatch]:
    remote = ray.remote(score_shard)
    usual, apart = (remote.options(max_retries=retries, **PLACEMENT) for retries in (RETRIES, -1))
    waiting: deque[tuple[Any, Callable[[], Any]]] = deque()
    while shard := list(islice(tasks, SHARD_TASKS)):
        held = ray.put(shard)  # once for all the times that it runs
        waiting.append((usual.remote(weights, held), partial(apart.remote, weights, held, careful=True)))
        # Asked anew each time: nodes come and go.
        if len(waiting) > SHARDS_PER_PROCESSOR * max(1, int(ray.cluster_resources().get("CPU", 0))):
            yield from _result(ray, *waiting.popleft())
    while waiting:
        yield from _result(ray, *waiting.popleft())


def _result(ray: Any, rows: Any, once_more: Callable[[], Any]) -> list[pa.RecordBatch]:
    try:
        batches: list[pa.RecordBatch] = ray.get(rows)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
        logger.warning("processes that decode pictures were ended; what they held is decoded once more")
        batches = ray.get(once_more())
    return batches


@contextmanager
def _connected(address: str | None, workers: int) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        _join(ray, address, workers)
    except Exception as error:  # that is what Ray raises where a node does not start
        raise ConfigurationError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _join(ray: Any, address: str | None, workers: int) -> None:
    place = _place(address, workers)
    for left in reversed(range(START_ATTEMPTS if address is None else 1)):
        try:
            ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
            return
        except Exception as error:
            _end_node(error)
            ray.shutdown()
            if not left:
                raise


def _end_node(error: Exception) -> None:
    """End what a node had begun that did not start; Ray forgets it, and it would run as long as this process."""
    from ray._private.node import Node

    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(node := frame.f_locals.get("self"), Node):
            node.kill_all_processes(check_alive=False, allow_graceful=True)


def _place(address: str | None, workers: int) -> dict[str, Any]:
    """Return where Ray runs.

    Raises:
        OSError: nothing listens there; Ray itself would try for minutes.
        ValueError: no address.
    """
    if address is None:
        return {"address": "local", "num_cpus": workers, "include_dashboard": False}
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected HOST:PORT")
    socket.create_connection((host, int(port)), CONNECT_S).close()
    return {"address": address}
