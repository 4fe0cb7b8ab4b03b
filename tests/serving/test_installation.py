import sys
import tomllib
from pathlib import Path

import pytest

from serving.errors import ConfigurationError
from serving.installation import EXTRAS, check_installation, installed_distributions

ROOT = Path(__file__).parent.parent.parent


def test_two_onnxruntimes_are_named_with_the_remedy():
    with pytest.raises(ConfigurationError, match=r"onnxruntime and onnxruntime-gpu are both installed.*pip uninstall"):
        check_installation(["onnxruntime", "onnxruntime-gpu"])


def test_one_onnxruntime_is_fine():
    assert len(installed_distributions()) == 1
    check_installation()


def test_without_an_onnxruntime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    remedy = r"onnxruntime is not installed: pip install 'mnist-reader\[cpu\]' or 'mnist-reader\[gpu\]'"
    with pytest.raises(ConfigurationError, match=remedy):
        check_installation()


def test_every_extra_brings_what_it_is_named_for():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for module, names in EXTRAS.items():
        for name in names:
            assert any(each.startswith(module) for each in extras[name])
