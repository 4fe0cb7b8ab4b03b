"""Every metric of the service, defined once.

Must not know: transports, models. Several workers write to one folder, `PROMETHEUS_MULTIPROC_DIR`, and any of them
answers for all.
"""

import asyncio
import os
import time
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import choose_encoder

from serving.drift import Drift
from serving.metric_files import Collector, forget_dead_workers
from serving.reasons import REASONS
from serving.status import REJECTIONS
from serving.tallies import Tallies, Tally, observe

MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# 0.1 ms to 10 s: a lone tensor takes 0.3 ms, a phone's photo 50 ms, a full queue seconds.
DURATION_BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)

UNKNOWN = "unknown"

# Images uint8 (N, 28, 28), their probabilities (N, 10), and what compares them with the training set.
Seen: TypeAlias = tuple[Drift, npt.NDArray[np.uint8], npt.NDArray[np.float32]]

# How long it takes until a worker has written what it has noted. What one that is killed answered since is lost.
WRITE_S = 0.05


class Metrics:
    """The metrics, in one registry.

    Labels have few values whatever is sent: `route` is a template or "unmatched", `method` one of HTTP's or "OTHER",
    `model` a name in the repository, "unknown" or empty.

    Args:
        registry: where they are collected from.
        shared: whether there are other workers, which write what they have noted within `WRITE_S`.
    """

    def __init__(self, registry: CollectorRegistry, *, shared: bool = False):
        self.registry, self._shared = registry, shared
        self.tallies = Tallies()
        registry.register(self.tallies)  # before the metrics, which it completes
        self._define_requests()
        self._define_batches()
        self._define_predictions()
        self._define_state()
        self._requests: dict[tuple[str, str, str, str, str], Tally[float]] = {}
        self._durations: dict[tuple[str, str], Tally[float]] = {}
        self._models: dict[tuple[str, str], ModelMetrics] = {}

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"mnist_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(f"mnist_{name}", text, labels, buckets=tuple(buckets), registry=self.registry)

    def _gauge(self, name: str, text: str, mode: str, *labels: str) -> Gauge:
        return Gauge(f"mnist_{name}", text, labels, multiprocess_mode=mode, registry=self.registry)  # type: ignore[arg-type]

    def _define_requests(self) -> None:
        self.requests = self._counter(
            "requests", "Answered requests.", "protocol", "method", "route", "model", "status"
        )
        self.request_duration = self._histogram(
            "request_duration_seconds",
            "From the head of a request to its answer.",
            DURATION_BUCKETS,
            "protocol",
            "route",
        )
        self.in_progress = self._gauge("requests_in_progress", "Requests without an answer yet.", "livesum", "protocol")
        rejected = self._counter("rejected", "Requests that were refused before they ran.", "reason")
        # All from the start: of a series that begins with its first refusal, a rate does not see that one.
        self.rejected = {reason: rejected.labels(reason) for reason in REJECTIONS}

    def _define_batches(self) -> None:
        of_version = ("model", "version")
        self.inference_duration = Summary(
            "mnist_inference_duration_seconds",
            "From arrival at a model to its answer, by success or failure.",
            (*of_version, "result"),
            registry=self.registry,
        )
        self.queue_duration = self._histogram(
            "queue_duration_seconds", "From arrival in the queue to the run.", DURATION_BUCKETS, *of_version
        )
        self.compute_duration = self._histogram(
            "compute_duration_seconds", "Run of one batch.", DURATION_BUCKETS, *of_version
        )
        self.batch_images = self._histogram("batch_images", "Images in one batch.", BATCH_BUCKETS, *of_version)
        self.queue_images = self._gauge("queue_images", "Images that wait.", "livesum", *of_version)
        self.last_inference = self._gauge(
            "last_inference_timestamp_seconds", "When the latest batch ran, since 1970.", "max", *of_version
        )

    def _define_predictions(self) -> None:
        self.predictions = self._counter("predictions", "Images by predicted digit.", "model", "digit")
        self.confidence = self._histogram(
            "confidence", "Probability of the predicted digit.", CONFIDENCE_BUCKETS, "model"
        )
        self.refused = self._counter(
            "refused", "Pictures whose prediction was not accepted, by reason; one may have several.", "model", "reason"
        )
        self.drift = self._gauge(
            "drift_index",
            "Population stability index of the latest images against the training set; the worst worker's.",
            "livemax",
            "model",
            "version",
            "feature",
        )

    def _define_state(self) -> None:
        self.model_info = self._gauge(
            "model_info", "1 for each version that is served.", "livemax", "model", "version", "sha256"
        )
        self.execution_provider = self._gauge(
            "execution_provider", "1 for the execution provider that runs a model.", "livemax", "model", "provider"
        )
        self.loads = self._counter("model_loads", "Versions that were loaded or rejected.", "model", "result")
        self.workers = self._gauge("workers", "Worker processes that are ready.", "livesum")
        self.configured_workers = self._gauge("configured_workers", "Worker processes that shall be there.", "livemax")
        self.resident_memory = self._gauge("resident_memory_bytes", "Resident memory of all workers.", "livesum")
        self.cpu = self._counter("cpu_seconds", "Processor time of all workers.")

    def request(self, protocol: str, method: str, route: str, model: str, status: str, seconds: float) -> None:
        """Note an answered request.

        Args:
            protocol: "http" or "grpc".
            method: an HTTP method from the fixed set, "OTHER", or "" for gRPC.
            route: the route's template or the name of the call.
            model: a name in the repository, "unknown", or "" where no model takes part.
            status: HTTP status or name of the gRPC code.
            seconds: from the head of the request to the end of the answer.
        """
        key = (protocol, method, route, model, status)
        count = self._requests.get(key)
        if count is None:
            count = self._requests[key] = self.tallies.counter(self.requests.labels(*key))
        duration = self._durations.get((protocol, route))
        if duration is None:
            histogram = self.request_duration.labels(protocol, route)
            duration = self._durations[protocol, route] = self.tallies.histogram(histogram)
        count.note(1)
        duration.note(seconds)
        self.tallies.write_some()

    async def settle(self) -> None:
        """Wait until every worker has written what it has answered so far."""
        self.tallies.write()
        if self._shared:
            await asyncio.sleep(WRITE_S)

    def of_model(self, model: str, version: str) -> "ModelMetrics":
        """Return the metrics of one model version, its labels already looked up."""
        if (model, version) not in self._models:
            self._models[model, version] = ModelMetrics(self, model, version)
        return self._models[model, version]


class ModelMetrics:
    """The metrics of one model version; an observer of its batcher."""

    def __init__(self, metrics: Metrics, model: str, version: str):
        tallies = metrics.tallies
        succeeded, failed = (metrics.inference_duration.labels(model, version, end) for end in ("success", "failure"))
        self._succeeded, self._failed = tallies.summary(succeeded), tallies.summary(failed)
        self._queue_duration = tallies.histogram(metrics.queue_duration.labels(model, version))
        self._compute_duration = tallies.histogram(metrics.compute_duration.labels(model, version))
        self._batch_images = tallies.histogram(metrics.batch_images.labels(model, version))
        self._queue_images = tallies.gauge(metrics.queue_images.labels(model, version))
        self._last_inference = tallies.gauge(metrics.last_inference.labels(model, version))
        self._digits = [metrics.predictions.labels(model, str(digit)) for digit in range(10)]
        self._confidence = metrics.confidence.labels(model)
        # Two, so that they are written in different turns: together they took 45 us, half as long as a request.
        self._probabilities: Tally[npt.NDArray[np.float32]] = tallies.add(self._count_predictions)
        self._seen: Tally[Seen] = tallies.add(_compare)
        self._refused = {reason: metrics.refused.labels(model, reason) for reason in REASONS}
        self._drift = [metrics.drift.labels(model, version, feature) for feature in ("digits", "ink")]

    def ran(self, images: int, compute_s: float) -> None:
        """Note that a batch of `images` ran."""
        self._batch_images.note(images)
        self._compute_duration.note(compute_s)
        self._last_inference.note(time.time())

    def answered(self, seconds: float, *, succeeded: bool) -> None:
        """Note that a request got its answer, or failed, after so long."""
        (self._succeeded if succeeded else self._failed).note(seconds)

    def waited(self, seconds: float) -> None:
        """Note how long a request waited before its first image ran."""
        self._queue_duration.note(seconds)

    def queued(self, images: int) -> None:
        """Note that `images` are waiting now."""
        self._queue_images.note(images)

    def predicted(self, drift: Drift, images: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.float32]) -> None:
        """Note what was predicted, to be counted later.

        Args:
            drift: compares the images with the training set.
            images: uint8, shape (N, 28, 28), N >= 1.
            probabilities: float32, shape (N, 10).
        """
        self._probabilities.note(probabilities)
        self._seen.note((drift, images, probabilities))

    def _count_predictions(self, values: list[npt.NDArray[np.float32]]) -> None:
        rows = np.concatenate(values)
        for digit, count in enumerate(np.bincount(rows.argmax(axis=1), minlength=10).tolist()):
            if count:
                self._digits[digit].inc(count)
        observe(self._confidence, rows.max(axis=1))

    def refuse(self, reason: str, predictions: int) -> None:
        """Note a reason not to accept so many predictions, one of `REASONS`."""
        self._refused[reason].inc(predictions)

    def drifted(self, indices: tuple[float, float]) -> None:
        """Note the stability indices of digits and ink."""
        for gauge, index in zip(self._drift, indices, strict=True):
            gauge.set(index)


def _compare(values: list[Seen]) -> None:
    for drift, group in groupby(values, itemgetter(0)):
        _, images, probabilities = (list(column) for column in zip(*group, strict=True))
        drift.add(np.concatenate(images), np.concatenate(probabilities).argmax(axis=1))


def gather(registry: CollectorRegistry) -> CollectorRegistry:
    """Return what to collect from: every worker's metrics where there are several, else `registry`."""
    folder = os.environ.get(MULTIPROC_VARIABLE)
    if not folder:
        return registry
    forget_dead_workers(Path(folder))
    registry = CollectorRegistry()
    Collector(registry, Path(folder))
    return registry


def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return every metric of every worker, and its content type, OpenMetrics where `accept` asks for it."""
    encode, content_type = choose_encoder(accept)
    return encode(gather(registry)), content_type
