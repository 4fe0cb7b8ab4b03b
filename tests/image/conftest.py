"""What the tests of the image share. `make image-test` builds it and names it and the engine in the environment."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.image.engine import IMAGE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not IMAGE and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="`make image-test` builds the image that this tests"))


@pytest.fixture(scope="session")
def seven(test_digits) -> bytes:
    """Return a test digit 7 as a PNG file."""
    images, labels = test_digits
    buffer = BytesIO()
    Image.fromarray(images[np.flatnonzero(labels == 7)[0]]).save(buffer, "PNG")
    return buffer.getvalue()
