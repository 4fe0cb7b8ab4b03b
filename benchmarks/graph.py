"""What could make the graph quicker, measured: ONNX Runtime's optimisation, done offline or not, threads, int8.

Run: .venv/bin/python -m benchmarks.graph [--models mnist-cnn mnist-resnet] [--rounds 15]

Every variant runs in turns with the others; the figure is the least of all rounds, which other work on the machine
disturbs least. int8 is static quantisation (QDQ) calibrated on 256 test digits; its accuracy is that on the others.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.bench import row
from benchmarks.cases import Images, test_images, write
from benchmarks.servers import ROOT, describe_machine
from serving.repository import Repository

BATCHES = (1, 8, 64, 256)
RUNS = {1: 200, 8: 50, 64: 8, 256: 2}
CALIBRATION = 256
LEVELS = ort.GraphOptimizationLevel


class Digits(CalibrationDataReader):  # type: ignore[misc]
    """Gives digits to the calibration, 32 at a time.

    Args:
        images: uint8 (N, 28, 28).
    """

    def __init__(self, images: Images):
        self._batches = iter(np.array_split(images, len(images) // 32))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def open_session(model: Path, level: Any = LEVELS.ORT_ENABLE_ALL, threads: int = 1, keep: Path | None = None) -> Any:
    """Return a session that does not spin; `keep` gets the graph as ONNX Runtime has made it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level, options.log_severity_level = level, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if keep:
        options.optimized_model_filepath = str(keep)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def quantise(model: Path, folder: Path, images: Images) -> Path:
    """Return the model with weights and activations of eight bits."""
    prepared, made = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(str(model), str(prepared))
    quantize_static(str(prepared), str(made), Digits(images), quant_format=QuantFormat.QDQ, per_channel=True)
    return made


def variants(model: Path, folder: Path, images: Images) -> dict[str, Any]:
    """Return the sessions, by what is different."""
    offline = folder / "offline.onnx"
    open_session(model, keep=offline)
    return {
        "as served": open_session(model),
        "no optimisation": open_session(model, LEVELS.ORT_DISABLE_ALL),
        "basic optimisation (folding)": open_session(model, LEVELS.ORT_ENABLE_BASIC),
        "extended, without layout": open_session(model, LEVELS.ORT_ENABLE_EXTENDED),
        "optimised offline": open_session(offline, LEVELS.ORT_DISABLE_ALL),
        "two threads": open_session(model, threads=2),
        "int8": open_session(quantise(model, folder, images[:CALIBRATION])),
    }


def measure(sessions: dict[str, Any], images: Images, rounds: int) -> dict[tuple[str, int], float]:
    """Return microseconds for one image, by variant and batch."""
    found: dict[tuple[str, int], float] = {}
    for _ in range(rounds):
        for size in BATCHES:
            for name, session in sessions.items():
                started = time.perf_counter()
                for _ in range(RUNS[size]):
                    session.run(None, {"images": images[:size]})
                spent_us = (time.perf_counter() - started) / RUNS[size] / size * 1e6
                found[name, size] = min(spent_us, found.get((name, size), spent_us))
    return found


def accuracy(session: Any, images: Images, labels: "np.ndarray[Any, Any]") -> float:
    """Return the share of digits that are read right."""
    right = [
        session.run(None, {"images": part})[0].argmax(axis=1) == truth
        for part, truth in zip(np.array_split(images, 100), np.array_split(labels, 100), strict=True)
    ]
    return float(np.concatenate(right).mean())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["mnist-cnn", "mnist-resnet"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=ROOT / "build/graph.md")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    images = test_images()
    labels = np.frombuffer((ROOT / "data/t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    heads = ["Model", "Variant", *(f"{size}" for size in BATCHES), "Accuracy"]
    lines = [f"{describe_machine()}. Microseconds for one image, by the size of the batch.", ""]
    lines += [row(*heads), row(*["---"] * len(heads))]
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            model = Repository(ROOT / "models").folder(name) / "model.onnx"
            sessions = variants(model, Path(folder), images)
            found = measure(sessions, images, arguments.rounds)
            for variant, session in sessions.items():
                cells = [f"{found[variant, size]:.1f}" for size in BATCHES]
                right = accuracy(session, images[CALIBRATION:], labels[CALIBRATION:])
                lines.append(row(name, variant, *cells, f"{right:.2%}"))
    write("\n".join(lines), arguments.output)


if __name__ == "__main__":
    main()
