"""OnnxModel: one ONNX Runtime session, its execution provider, its threads.

Must not know: manifests, batching queues, transports.
"""

import contextlib
import io
import logging
import re
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort  # type: ignore[import-untyped]

from serving.errors import ConfigurationError, ModelRejected, ServingError
from serving.processors import available_threads

__all__ = [
    "INPUT",
    "OUTPUTS",
    "Device",
    "OnnxModel",
    "Outputs",
    "available_threads",
    "open_on_cpu",
]

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Images = npt.NDArray[np.uint8]

INPUT = "images"
OUTPUTS = ["logits", "probabilities"]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

# Nine buckets, 1 to 256, bound what warm-up runs and what the device keeps; larger batches run in pieces.
LARGEST_BUCKET = 256

CUDA_OPTIONS = {
    # EXHAUSTIVE, the default, tries every algorithm at each new shape: a stall at the first request of each size.
    "cudnn_conv_algo_search": "HEURISTIC",
    # TF32 has ten bits of mantissa: it would move logits by up to 1e-2.
    "use_tf32": "0",
}

# What ONNX Runtime says of a file that is newer than itself: the check, and the pattern with found and largest.
_VERSION_ERRORS = {
    "IR version": re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
    "opset": re.compile(r"Opset (\d+) is under development.*is till opset (\d+)", re.DOTALL),
}


class Outputs(NamedTuple):
    """What the graph gives for N images.

    `logits` and `probabilities` are float32, shape (N, 10); column k is digit k; each row of probabilities sums to 1.
    """

    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]


def bucket_of(size: int) -> int:
    """Return the batch size that a batch of `size` images (1 to LARGEST_BUCKET) is padded to: a power of two."""
    return 1 << (size - 1).bit_length()


def _explain(error: Exception) -> ModelRejected:
    text = str(error)
    for check, pattern in _VERSION_ERRORS.items():
        if match := pattern.search(text):
            return ModelRejected(check, match[1], f"at most {match[2]}, by onnxruntime {ort.__version__}")
    return ModelRejected("runtime", _first_line(text), f"a graph that onnxruntime {ort.__version__} loads")


def _first_line(text: str) -> str:
    """Cut ONNX Runtime's prefix of code and source position off its message, and all but the first line."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text).partition("\n")[0].strip()


@cache
def _share_arena() -> None:
    """Give all models of this process one arena: they run in turns, and each would keep room for its largest batch."""
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    # Grown by what is asked for (1), not to the next power of two; nothing else is limited.
    config = {"max_mem": 0, "arena_extend_strategy": 1, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(config))


def _session_options(threads: int) -> ort.SessionOptions:
    _share_arena()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # A spinning thread burns a processor while it waits for the next request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def _open(model: bytes, providers: Sequence[Any], threads: int) -> ort.InferenceSession:
    # ONNX Runtime's own fallback prints to standard output and changes the provider behind our back.
    session = ort.InferenceSession(model, _session_options(threads), providers=providers, enable_fallback=0)
    session.disable_fallback()
    return session


@cache
def _preload_cuda_libraries() -> str:
    """Load CUDA and cuDNN from the wheels that the extra `gpu` brings, once; return what is missing, or nothing."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    return said.getvalue().partition("\n")[0].strip()


def _open_on_cuda(model: bytes, threads: int) -> tuple[ort.InferenceSession | None, str]:
    """Return a session that really runs on CUDA, or None and why there is none."""
    if CUDA not in ort.get_available_providers():
        return None, f"onnxruntime {ort.__version__} is a build without CUDA; install the extra `gpu`"
    missing = _preload_cuda_libraries()
    try:
        session = _open(model, [(CUDA, CUDA_OPTIONS), CPU], threads)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        return None, f"the CUDA provider did not start: {_first_line(str(error))}"
    if session.get_providers()[0] != CUDA:
        return (
            None,
            f"the CUDA provider did not load: {missing or 'no GPU, no driver, or not the CUDA it was built for'}",
        )
    return session, "the session runs on CUDA"


def open_on_cpu(model: bytes, threads: int) -> ort.InferenceSession:
    """Return a session on the CPU, whatever the graph's tensors are.

    Raises:
        ModelRejected: ONNX Runtime cannot load the graph.
    """
    try:
        return _open(model, [CPU], threads)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise _explain(error) from error


def _decide(model: bytes, device: Device, threads: int) -> tuple[ort.InferenceSession, str]:
    if device == "cpu":
        return open_on_cpu(model, threads), "cpu was asked for"
    session, reason = _open_on_cuda(model, threads)
    if session is not None:
        return session, reason
    # A graph that does not load anywhere is rejected, and no fault of the device.
    session = open_on_cpu(model, threads)
    if device == "cuda":
        raise ConfigurationError(f"device cuda: {reason}; the devices are auto, cpu and cuda")
    if CUDA in ort.get_available_providers():  # a build without it was chosen for the CPU
        logger.warning("a model runs on the CPU and not on a GPU: %s", reason)
    return session, reason


class PaddedRunner:
    """Runs batches padded to few sizes, in buffers that stay on the device; one call at a time.

    Args:
        session: of a graph with the tensors `images`, `logits`, `probabilities`.
        device_type: where the input buffers live, "cuda" or "cpu".
    """

    def __init__(self, session: ort.InferenceSession, device_type: str):
        self._session, self._device_type = session, device_type
        self._buckets: dict[int, tuple[Images, ort.OrtValue, ort.IOBinding]] = {}
        self._lock = threading.Lock()

    @property
    def bucket_sizes(self) -> list[int]:
        """The batch sizes that have run so far, ascending."""
        return sorted(self._buckets)

    def _bucket(self, size: int) -> tuple[Images, ort.OrtValue, ort.IOBinding]:
        if size not in self._buckets:
            staging = np.zeros((size, 28, 28), np.uint8)
            device_images = ort.OrtValue.ortvalue_from_numpy(staging, self._device_type, 0)
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(INPUT, device_images)
            for name in OUTPUTS:
                binding.bind_output(name, "cpu")
            self._buckets[size] = staging, device_images, binding
        return self._buckets[size]

    def _run_piece(self, images: Images) -> list[npt.NDArray[np.float32]]:
        count = len(images)
        staging, device_images, binding = self._bucket(bucket_of(count))
        staging[:count] = images
        staging[count:] = 0
        device_images.update_inplace(staging)
        self._session.run_with_iobinding(binding)
        return [output[:count] for output in binding.copy_outputs_to_cpu()]

    def __call__(self, images: Images) -> list[npt.NDArray[np.float32]]:
        """Return logits and probabilities, float32 (N, 10), of images uint8 (N, 28, 28), N >= 1."""
        starts = range(0, len(images), LARGEST_BUCKET)
        with self._lock:
            pieces = [self._run_piece(images[start : start + LARGEST_BUCKET]) for start in starts]
        return pieces[0] if len(pieces) == 1 else [np.concatenate(output) for output in zip(*pieces, strict=True)]


class OnnxModel:
    """An ONNX graph from raw digit images to logits and probabilities, ready to run.

    Args:
        source: the file, or its bytes.
        device: `cpu`; `cuda`, which refuses to start on anything else; or `auto`, CUDA where it really runs.
        threads: of one operator; by default what CPU affinity and control group allow.

    Attributes:
        provider: the execution provider in use, as ONNX Runtime names it.
        reason: why it is this provider, for the log.

    Raises:
        ConfigurationError: `cuda` was asked for and the session does not run on it.
        ModelRejected: ONNX Runtime cannot load the graph, or its tensors have other names.
    """

    def __init__(self, source: Path | bytes, device: Device = "auto", threads: int | None = None):
        model = source if isinstance(source, bytes) else source.read_bytes()
        self._session, self.reason = _decide(model, device, threads or available_threads())
        self.provider: str = self._session.get_providers()[0]
        self._check_names()
        self._padded = PaddedRunner(self._session, "cuda") if self.provider == CUDA else None

    def _check_names(self) -> None:
        inputs = [tensor.name for tensor in self._session.get_inputs()]
        outputs = [tensor.name for tensor in self._session.get_outputs()]
        if inputs != [INPUT] or outputs != OUTPUTS:
            raise ModelRejected("tensors", f"{inputs} -> {outputs}", f"{[INPUT]} -> {OUTPUTS}")

    def _run_session(self, images: Images) -> Sequence[npt.NDArray[np.float32]]:
        # Measured on a CPU, one image: run 7 us, a fresh I/O binding 11 us, OrtValues 42 us.
        outputs: Sequence[npt.NDArray[np.float32]] = self._session.run(OUTPUTS, {INPUT: images})
        return outputs

    def run(self, images: Images) -> Outputs:
        """Classify a batch; safe to call from several threads.

        Args:
            images: uint8, shape (N, 28, 28), N >= 0, 0 = paper, 255 = ink; validated by the caller.

        Raises:
            ServingError: ONNX Runtime failed on this batch.
        """
        if not len(images):
            return Outputs(np.empty((0, 10), np.float32), np.empty((0, 10), np.float32))
        try:
            # Not kept: a bound method of its own would keep the model, and its session, until a garbage collection.
            return Outputs(*(self._padded or self._run_session)(images))
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ServingError(
                f"the model failed on {images.dtype} {images.shape}: {_first_line(str(error))}"
            ) from error

    def warm_up(self, batch_sizes: Iterable[int]) -> None:
        """Run a blank batch of each size, so that no request pays for a first time.

        On CUDA the sizes are padded to buckets, and each bucket runs once.
        """
        pad = self._padded is not None
        for size in sorted({bucket_of(min(size, LARGEST_BUCKET)) if pad else size for size in batch_sizes}):
            self.run(np.zeros((size, 28, 28), np.uint8))
