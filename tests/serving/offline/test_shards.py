import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ConfigurationError, ModelRejected
from serving.manifest import Acceptance
from serving.offline import shards
from serving.offline.job import partial_folder
from serving.offline.journal import JOURNAL
from serving.offline.pictures import Entries, Entry
from serving.offline.shards import Weights, score_shard
from serving.repository import Repository, load
from tests.serving.offline.conftest import Deadly, Score, expected_digits, idx_bytes, png_bytes
from tests.serving.tiny_model import write_tiny_model


def start_cluster() -> Any:
    """Start a cluster of one node; at times one of Ray's own processes never begins, and Ray gives up after 30 s."""
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "include_dashboard": False}
    for _ in range(3):
        try:
            return Cluster(initialize_head=True, head_node_args=options)
        except Exception as error:
            shards._end_node(error)
    return Cluster(initialize_head=True, head_node_args=options)


# To open a picture takes so much longer that the nodes are behind who waits for them, on any machine.
SLOW = """
import pathlib, time
usual = pathlib.Path.open
def slow(self, *arguments, **options):
    time.sleep(0.002 if self.suffix == ".png" else 0)
    return usual(self, *arguments, **options)
pathlib.Path.open = slow
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """Return a cluster of two slow nodes, and the second of them."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])]))
    pytest.importorskip("ray")
    nodes = start_cluster()
    try:
        yield nodes, nodes.add_node(num_cpus=1)
    finally:
        nodes.shutdown()


def is_busy(node: Any) -> bool:
    """Return whether a process of a node is in the middle of a shard, as Ray shows it in the name of the process."""
    agents = {str(process.process.pid) for processes in node.all_processes.values() for process in processes}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
            if parent in agents and b"score_shard" in (status.parent / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


def kill_when(cluster: Any, node: Any, journal: Path, tasks: int, killed_at: list[int], over: threading.Event) -> None:
    while not over.is_set():
        done = journal.read_bytes().count(b"\n") if journal.exists() else 0
        if done >= tasks and is_busy(node):
            cluster.remove_node(node, allow_graceful=False)
            killed_at.append(done)
            return
        time.sleep(0.005)


@pytest.mark.slow
def test_g09_a_node_that_dies_half_way_loses_and_repeats_nothing(
    cluster: tuple[Any, Any], score: Score, test_digits, tmp_path: Path
):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number, image in enumerate(test_digits[0][:3000]):
        (tree / f"{number:04}.png").write_bytes(png_bytes(image))
    (tree / "1500x.png").write_bytes(b"bad")
    local = score(tree, output=tmp_path / "local.parquet")
    output, killed_at = tmp_path / "ray.parquet", list[int]()
    journal, over = partial_folder(output) / JOURNAL, threading.Event()
    killer = threading.Thread(target=kill_when, args=(*cluster, journal, 40, killed_at, over))
    killer.start()
    try:
        scored = score(tree, "--engine", "ray", "--ray-address", cluster[0].address, output=output)
    finally:
        over.set()
        killer.join()
    assert 40 <= killed_at[0] < 94
    assert scored.code == local.code == 3
    assert scored.rows == local.rows
    assert len(scored.rows) == 3001


@pytest.mark.slow
def test_without_an_address_a_cluster_runs_here_and_its_failures_are_told(
    score: Score, test_digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray")
    path = tmp_path / "idx"
    path.write_bytes(idx_bytes(test_digits[0][:6000]))
    whole = score(path, output=tmp_path / "whole.parquet")
    scored = score(path, "--engine", "ray", "--workers", 1)
    assert (scored.code, scored.rows) == (0, whole.rows)
    broken = Weights(b"no model", Acceptance(min_confidence=0.0, chosen_on="default"), "cpu")
    monkeypatch.setattr(Weights, "of", lambda *_: broken)
    scored = score(path, "--engine", "ray", "--workers", 1)
    assert scored.code == 1
    assert scored.stderr.startswith("error: runtime: found Failed to load model")
    assert scored.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_picture_that_ends_its_process_costs_its_own_row_alone(models: Path, tmp_path: Path, deadly: Deadly):
    pytest.importorskip("ray")
    output = tmp_path / "rows.csv"
    command = [*deadly.command(models, output), "--engine", "ray", "--workers", "1"]
    ended = subprocess.run(command, env=deadly.environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 3, ended.stderr
    deadly.check(output)


def test_a_shard_gives_the_rows_of_each_of_its_tasks(models: Path, digits):
    weights = Weights.of(load(Repository(models).folder("tiny"), "cpu", threads=1), "cpu")
    entries = [Entry(number, "source", "", 7, png_bytes(digits[0][number])) for number in range(5)]
    batches = score_shard(weights, [Entries(tuple(entries[:2]), 1000), Entries(tuple(entries[2:]), 1000)])
    assert [batch.num_rows for batch in batches] == [2, 3]
    assert [digit for batch in batches for digit in batch.column("digit").to_pylist()] == expected_digits(digits[0][:5])


def test_a_model_file_that_changed_since_its_checks_is_not_sent(tmp_path: Path):
    folder = write_tiny_model(tmp_path)
    model = load(folder, "cpu", threads=1)
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(ModelRejected, match="SHA-256"):
        Weights.of(model, "cpu")


def test_without_ray_it_says_what_to_install(models: Path, tmp_path: Path, digits):
    (tmp_path / "0.png").write_bytes(png_bytes(digits[0][0]))
    code = "import sys; sys.modules['ray'] = None; from serving.__main__ import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["score", str(tmp_path / "0.png"), "--models", str(models), "--model", "tiny", "--engine", "ray"]
    command = [sys.executable, "-c", code, *arguments, "-qo", str(tmp_path / "o.csv")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "error: ray is not installed: pip install 'mnist-reader[ray]'\n")


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:", ":6379", "127.0.0.1:{port}"])
def test_a_cluster_that_is_not_there_is_told_at_once(
    score: Score, digits, tmp_path: Path, free_port: int, address: str
):
    pytest.importorskip("ray")
    (tmp_path / "0.png").write_bytes(png_bytes(digits[0][0]))
    address = address.format(port=free_port)
    scored = score(tmp_path / "0.png", "--engine", "ray", "--ray-address", address)
    assert scored.code == 1
    assert scored.stderr.startswith(f"error: no Ray cluster at {address}: ")


def test_a_ray_address_without_ray_is_refused(score: Score, tmp_path: Path):
    scored = score(tmp_path, "--ray-address", "127.0.0.1:6379")
    assert (scored.code, scored.stderr) == (1, "error: --ray-address is for --engine ray\n")


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the first two starts of a cluster fail; return what Ray was told to do."""
    ray, told = pytest.importorskip("ray"), []

    def init(**options: Any) -> None:
        told.append(options["address"])
        if told.count("local") < 3:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: told.append("shutdown"))
    return told


def test_a_node_that_does_not_start_is_started_again(fails: list[str]):
    with shards._connected(None, 1):
        assert fails == ["local", "shutdown", "local", "shutdown", "local"]


def test_what_a_node_had_begun_that_does_not_start_is_ended(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ray")
    from ray._private.node import Node

    begun: list[subprocess.Popen[bytes]] = []

    def fail(node: Any) -> None:
        begun.extend(each.process for processes in node.all_processes.values() for each in processes)
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(Node, "start_ray_processes", fail)
    monkeypatch.setattr(shards, "START_ATTEMPTS", 1)
    with pytest.raises(ConfigurationError, match="timed out"), shards._connected(None, 1):
        pass
    assert begun
    assert all(process.returncode is not None for process in begun)


def test_a_node_that_never_starts_is_told(score: Score, digits, tmp_path: Path, monkeypatch, fails: list[str]):
    monkeypatch.setattr(shards, "START_ATTEMPTS", 2)
    (tmp_path / "0.png").write_bytes(png_bytes(digits[0][0]))
    scored = score(tmp_path / "0.png", "--engine", "ray")
    assert scored.code == 1
    assert scored.stderr == "error: no Ray cluster at this machine: The current node timed out during startup.\n"
    assert fails == ["local", "shutdown"] * 2
