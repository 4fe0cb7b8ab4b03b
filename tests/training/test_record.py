import numpy as np
import pytest

from training import record
from training.record import make_reference, packages


def test_onnxruntime_gpu_is_recorded_where_it_is_the_one_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "installed_distributions", lambda: ["onnxruntime-gpu"])
    monkeypatch.setattr(record, "installed_version", lambda name: f"that of {name}")
    names = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime-gpu")
    assert packages() == {name: f"that of {name}" for name in names}


def test_ink_is_cut_at_its_deciles():
    images = np.repeat(np.arange(100, dtype=np.uint8), 28 * 28).reshape(100, 28, 28)
    reference = make_reference(images, np.arange(100) % 10)
    assert reference.digits == [0.1] * 10
    np.testing.assert_allclose(reference.ink_edges, [0, *np.arange(1, 10) * 9.9, 255])
    assert reference.ink == [0.1] * 10
