import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from serving import runtime
from serving.errors import ConfigurationError, ModelRejected, ServingError
from serving.runtime import CPU, CUDA, LARGEST_BUCKET, OnnxModel, PaddedRunner, bucket_of
from tests.serving.tiny_model import expected_logits, tiny_graph

MODEL = tiny_graph().SerializeToString()

Pretend = Callable[[Callable[[list[Any]], Any]], None]


def without_gpu() -> bool:
    return runtime._open_on_cuda(MODEL, 1)[0] is None


def some_images(count: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 2, 7, 64, 257])
def test_a_batch_of_any_size_gives_logits_and_probabilities(count: int):
    images = some_images(count)
    outputs = OnnxModel(MODEL, "cpu").run(images)
    assert outputs.logits.dtype == outputs.probabilities.dtype == np.float32
    np.testing.assert_allclose(outputs.logits, expected_logits(images), atol=1e-4)
    np.testing.assert_allclose(outputs.probabilities, softmax(expected_logits(images)), atol=1e-5)


def test_an_empty_batch_gives_empty_outputs():
    outputs = OnnxModel(MODEL, "cpu").run(np.empty((0, 28, 28), np.uint8))
    assert outputs.logits.shape == outputs.probabilities.shape == (0, 10)
    assert outputs.logits.dtype == outputs.probabilities.dtype == np.float32


def test_a_file_and_its_bytes_are_the_same_model(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(MODEL)
    images = some_images(3)
    from_file = OnnxModel(tmp_path / "model.onnx", "cpu").run(images)
    np.testing.assert_array_equal(from_file.logits, OnnxModel(MODEL, "cpu").run(images).logits)


def test_threads_may_share_a_model():
    model = OnnxModel(MODEL, "cpu", threads=1)
    batches = [some_images(1 + seed % 9, seed) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(model.run, batches))
    for images, outputs in zip(batches, results, strict=True):
        np.testing.assert_allclose(outputs.logits, expected_logits(images), atol=1e-4)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_a_model_that_nobody_has_any_more_is_freed_at_once(no_collector: None):
    model = OnnxModel(MODEL, "cpu", threads=1)
    model.run(some_images(3))
    session = weakref.ref(model._session)
    del model
    assert session() is None


def test_a_batch_of_another_shape_is_an_error_that_names_it():
    with pytest.raises(ServingError, match=r"failed on uint8 \(2, 27, 28\)") as caught:
        OnnxModel(MODEL, "cpu").run(np.zeros((2, 27, 28), np.uint8))
    assert "/onnxruntime_src" not in str(caught.value)


@pytest.mark.parametrize(("field", "check"), [("ir_version", "IR version"), ("opset", "opset")])
def test_a_file_newer_than_the_runtime_is_refused_with_both_versions(field: str, check: str):
    graph = tiny_graph()
    if field == "opset":
        graph.opset_import[0].version = 99
    else:
        graph.ir_version = 99
    with pytest.raises(ModelRejected) as caught:
        OnnxModel(graph.SerializeToString(), "cpu")
    assert (caught.value.check, caught.value.found) == (check, "99")
    assert int(caught.value.expected.removeprefix("at most ").partition(",")[0]) < 99


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(ModelRejected, match=f"that onnxruntime {ort.__version__} loads"):
        OnnxModel(b"no model", "cpu")


def test_other_tensor_names_are_refused():
    with pytest.raises(ModelRejected, match=r"found \['x'\] -> \['y', 'z'\]"):
        OnnxModel(tiny_graph(names=("x", "y", "z")).SerializeToString(), "cpu")


def test_the_session_neither_spins_nor_takes_more_threads_than_given():
    options = runtime._session_options(3)
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL


def test_cpu_runs_on_the_cpu_and_says_that_it_was_asked_for():
    model = OnnxModel(MODEL, "cpu")
    assert (model.provider, model.reason) == (CPU, "cpu was asked for")


@pytest.mark.skipif("not without_gpu()", reason="a GPU is here")
def test_without_a_gpu_cuda_refuses_and_auto_says_that_it_fell_back(caplog: pytest.LogCaptureFixture):
    with pytest.raises(ConfigurationError, match=r"device cuda: .*CUDA"):
        OnnxModel(MODEL, "cuda")
    model = OnnxModel(MODEL, "auto")
    assert model.provider == CPU
    assert "CUDA" in model.reason
    assert (caplog.messages != []) == (CUDA in ort.get_available_providers())


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretend]:
    """Give a function that makes ONNX Runtime look like a build with CUDA, its sessions coming from an argument."""
    real = ort.InferenceSession

    def pretend(give_session: Callable[[list[Any]], Any]) -> None:
        def open_session(model: bytes, options: Any, providers: list[Any], **keywords: Any) -> Any:
            assert keywords == {"enable_fallback": 0}
            return real(model, options, providers=providers) if providers == [CPU] else give_session(providers)

        monkeypatch.setattr(ort, "InferenceSession", open_session)

    runtime._preload_cuda_libraries.cache_clear()
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    yield pretend
    runtime._preload_cuda_libraries.cache_clear()


def on_cpu_after_all(_: list[Any]) -> Any:
    return SimpleNamespace(get_providers=lambda: [CPU], disable_fallback=lambda: None)


def test_a_session_that_is_not_on_cuda_is_refused_or_replaced_with_a_warning(
    cuda_build: Pretend, caplog: pytest.LogCaptureFixture
):
    cuda_build(on_cpu_after_all)
    with pytest.raises(ConfigurationError, match="did not load: no GPU, no driver, or not the CUDA it was built for"):
        OnnxModel(MODEL, "cuda")
    OnnxModel(MODEL, "cpu")
    assert caplog.messages == []
    model = OnnxModel(MODEL, "auto")
    assert (model.provider, model.reason.partition(":")[0]) == (CPU, "the CUDA provider did not load")
    assert caplog.messages == [f"a model runs on the CPU and not on a GPU: {model.reason}"]


def test_a_missing_library_is_named_and_looked_for_once(
    cuda_build: Pretend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    looked = []

    def look() -> None:
        looked.append(True)
        sys.stdout.write("Failed to load libcublas.so.13: not found\nmore\n")

    monkeypatch.setattr(ort, "preload_dlls", look)
    cuda_build(on_cpu_after_all)
    for _ in range(2):
        assert OnnxModel(MODEL).reason.endswith("did not load: Failed to load libcublas.so.13: not found")
    assert looked == [True]
    assert capsys.readouterr().out == ""


def test_a_provider_that_fails_to_start_is_no_cuda(cuda_build: Pretend):
    def fail(providers: list[Any]) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 35: driver too old\nmore")

    cuda_build(fail)
    with pytest.raises(ConfigurationError, match="did not start: CUDA failure 35: driver too old; the devices"):
        OnnxModel(MODEL, "cuda")
    assert OnnxModel(MODEL, "auto").provider == CPU


@pytest.mark.parametrize("device", ["cpu", "auto", "cuda"])
def test_a_graph_that_loads_nowhere_is_no_fault_of_the_device(cuda_build: Pretend, device: runtime.Device):
    graph = tiny_graph()
    graph.opset_import[0].version = 99
    model, real = graph.SerializeToString(), ort.InferenceSession
    cuda_build(lambda _: real(model, providers=[CPU]))
    with pytest.raises(ModelRejected, match="opset: found 99, expected at most"):
        OnnxModel(model, device)


class CpuSessionThatSaysCuda:
    """A real session, which runs padded batches through I/O binding on the CPU."""

    def __init__(self, providers: list[Any]):
        self.asked = providers
        self.shapes: list[int] = []
        self._session = runtime._open(MODEL, [CPU], 1)

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def run_with_iobinding(self, binding: Any) -> None:
        self._session.run_with_iobinding(binding)
        self.shapes.append(binding.get_outputs()[0].shape()[0])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@pytest.fixture
def cuda_model(cuda_build: Pretend, monkeypatch: pytest.MonkeyPatch) -> OnnxModel:
    session = CpuSessionThatSaysCuda([])

    def give(providers: list[Any]) -> CpuSessionThatSaysCuda:
        session.asked = providers
        return session

    cuda_build(give)
    monkeypatch.setattr(runtime, "PaddedRunner", lambda session, _: PaddedRunner(session, "cpu"))
    return OnnxModel(MODEL, "cuda")


def test_on_cuda_the_provider_is_told_how_to_choose_and_to_round(cuda_model: OnnxModel):
    (provider, options), fallback = cuda_model._session.asked
    assert (provider, fallback) == (CUDA, CPU)
    assert options == {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert (cuda_model.provider, cuda_model.reason) == (CUDA, "the session runs on CUDA")


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 256, 257, 600])
def test_padded_batches_give_the_same_rows(cuda_model: OnnxModel, count: int):
    cuda_model.run(some_images(256, seed=9))  # leaves other digits in the buffers
    images = some_images(count)
    outputs = cuda_model.run(images)
    np.testing.assert_allclose(outputs.logits, expected_logits(images), atol=1e-4)
    np.testing.assert_allclose(outputs.probabilities, softmax(expected_logits(images)), atol=1e-5)


def test_padded_outputs_stay_as_they_were_when_the_next_batch_runs(cuda_model: OnnxModel):
    first = cuda_model.run(some_images(4))
    copy = first.logits.copy()
    cuda_model.run(some_images(4, seed=8))
    np.testing.assert_array_equal(first.logits, copy)


def test_only_buckets_reach_the_device(cuda_model: OnnxModel):
    for count in (3, 5, 300):
        cuda_model.run(some_images(count))
    assert cuda_model._session.shapes == [4, 8, 256, 64]


def test_warm_up_runs_each_bucket_once(cuda_model: OnnxModel):
    cuda_model.warm_up([1, 3, 4, 64, 300])
    assert cuda_model._session.shapes == [1, 4, 64, 256]


def test_warm_up_on_a_cpu_runs_the_sizes_themselves(monkeypatch: pytest.MonkeyPatch):
    model, sizes = OnnxModel(MODEL, "cpu"), []
    monkeypatch.setattr(model, "run", lambda images: sizes.append(len(images)))
    model.warm_up([300, 1, 3, 3])
    assert sizes == [1, 3, 300]


def test_a_bucket_is_the_next_power_of_two():
    assert [bucket_of(size) for size in (1, 2, 3, 4, 5, 64, 65, LARGEST_BUCKET)] == [1, 2, 4, 4, 8, 64, 128, 256]


def test_importing_the_runtime_writes_nothing():
    code = "import serving.runtime"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.gpu
@pytest.mark.skipif("without_gpu()", reason="no GPU, or onnxruntime without CUDA")
def test_on_a_gpu_the_logits_are_those_of_the_cpu():
    images = some_images(100)
    on_gpu, on_cpu = OnnxModel(MODEL, "cuda"), OnnxModel(MODEL, "cpu")
    assert on_gpu.provider == CUDA
    np.testing.assert_allclose(on_gpu.run(images).logits, on_cpu.run(images).logits, atol=1e-4)
