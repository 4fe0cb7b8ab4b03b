"""Statistics: what the models have done since the start, read from the metrics of every worker.

Must not know: how they travel.
Source: Triton's statistics extension.
"""

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry

from serving.catalogue import Catalogue
from serving.metrics import Metrics, gather

# Of a model version: the sum or count of a metric by its sample's name, and by its result where it has one.
Figures = dict[tuple[str, str], float]


class Statistics:
    """Reads what the models have done.

    Args:
        catalogue: the models that are served.
        metrics: of the whole service.
    """

    def __init__(self, catalogue: Catalogue, metrics: Metrics):
        self._catalogue, self._metrics = catalogue, metrics

    async def of(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Return the statistics of every version that is served, or of one model, or of one version of it.

        Raises:
            ModelNotFound: no such model or version.
            NotReady: it is there but is not served.
        """
        if name:
            self._catalogue.get(name, version)
        served = [
            (predictor.name, predictor.version)
            for predictor in self._catalogue.predictors()
            if name in ("", predictor.name) and version in ("", predictor.version)
        ]
        await self._metrics.settle()
        # With several workers this reads a file of each metric and worker.
        figures = await asyncio.to_thread(_collect, self._metrics.registry)
        return {"model_stats": [_describe(*key, figures.get(key, {})) for key in sorted(served)]}


def _collect(registry: CollectorRegistry) -> dict[tuple[str, str], Figures]:
    versions: dict[tuple[str, str], Figures] = {}
    for family in gather(registry).collect():
        for sample in family.samples:
            labels = sample.labels
            if "version" in labels and "le" not in labels:
                figures = versions.setdefault((labels["model"], labels["version"]), {})
                figures[sample.name, labels.get("result", "")] = sample.value
    return versions


def _describe(name: str, version: str, figures: Figures) -> dict[str, Any]:
    def total(sample: str) -> int:
        return int(figures.get((sample, ""), 0))

    return {
        "name": name,
        "version": version,
        "last_inference": int(figures.get(("mnist_last_inference_timestamp_seconds", ""), 0) * 1000),
        "inference_count": total("mnist_batch_images_sum"),
        "execution_count": total("mnist_batch_images_count"),
        "inference_stats": {
            "success": _duration(figures, "mnist_inference_duration_seconds", "success"),
            "fail": _duration(figures, "mnist_inference_duration_seconds", "failure"),
            "queue": _duration(figures, "mnist_queue_duration_seconds"),
            "compute_infer": _duration(figures, "mnist_compute_duration_seconds"),
        },
    }


def _duration(figures: Figures, metric: str, result: str = "") -> dict[str, int]:
    count, seconds = (figures.get((f"{metric}_{part}", result), 0.0) for part in ("count", "sum"))
    return {"count": int(count), "ns": round(seconds * 1e9)}
