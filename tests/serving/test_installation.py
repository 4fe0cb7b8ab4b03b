import pytest

from serving.errors import ConfigurationError
from serving.installation import check_installation, installed_distributions


def test_two_onnxruntimes_are_named_with_the_remedy():
    with pytest.raises(ConfigurationError, match=r"onnxruntime and onnxruntime-gpu are both installed.*pip uninstall"):
        check_installation(["onnxruntime", "onnxruntime-gpu"])


def test_one_onnxruntime_is_fine():
    assert len(installed_distributions()) == 1
    check_installation()
