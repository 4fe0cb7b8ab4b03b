"""What every test may use; numpy and Hypothesis only, so that the service's tests run without torch."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings

from tests.ports import free_ports

# Read when gRPC is loaded. Ray forks the processes that it starts, and while threads of gRPC are at work, such as those
# that other tests leave, its handlers have up to 3 in 100 of them crash before they begin (grpcio 1.85.3; without them
# none of 4,500).
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

DATA = Path(__file__).parent.parent / "data"

# A busy machine may take any time for an example, or to make one up.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def read_idx(path: Path, header_bytes: int) -> npt.NDArray[np.uint8]:
    if not path.is_file():
        message = f"{path.name} is missing: run `python -m training fetch-data`"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return np.frombuffer(path.read_bytes(), np.uint8, offset=header_bytes)


@pytest.fixture(scope="session")
def test_digits() -> Digits:
    """Return MNIST's test set: images uint8 (10000, 28, 28), labels uint8 (10000,)."""
    images = read_idx(DATA / "t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)
    return images, read_idx(DATA / "t10k-labels-idx1-ubyte", 8)


@pytest.fixture
def free_port() -> int:
    """Return a TCP port on which nothing listens at the moment."""
    (port,) = free_ports(1)
    return port
