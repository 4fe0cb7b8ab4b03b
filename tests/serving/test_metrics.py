import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from serving.metrics import Metrics, expose
from serving.tallies import TURNS

ROOT = Path(__file__).parents[2]

# Writes what one worker would, and ends.
WORKER = """
import os, sys
from prometheus_client import CollectorRegistry
from serving.metrics import Metrics
metrics = Metrics(CollectorRegistry())
for _ in range(int(sys.argv[1])):
    metrics.request("http", "POST", "/predict", "tiny", "200", 0.003)
metrics.workers.set(1)
metrics.in_progress.labels("http").set(5)
metrics.tallies.write()
"""

# Answers for all workers, as one more of them.
SCRAPE = """
import sys
from prometheus_client import CollectorRegistry
from serving.metrics import Metrics, expose
metrics = Metrics(CollectorRegistry())
metrics.workers.set(1)
sys.stdout.buffer.write(expose(metrics.registry, sys.argv[1])[0])
"""


def run(code: str, folder: Path, *arguments: str) -> str:
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True).stdout


def samples(text: str) -> dict[str, float]:
    families = parse_prometheus(text)
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value for each in families for sample in each.samples
    }


def test_requests_are_counted_by_label_and_timed():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for _ in range(3):
        metrics.request("http", "POST", "/predict", "tiny", "200", 0.003)
    labels = {"protocol": "http", "method": "POST", "route": "/predict", "model": "tiny", "status": "200"}
    assert registry.get_sample_value("mnist_requests_total", labels) == 3
    duration = {"protocol": "http", "route": "/predict"}
    assert registry.get_sample_value("mnist_request_duration_seconds_sum", duration) == pytest.approx(0.009)
    assert registry.get_sample_value("mnist_request_duration_seconds_bucket", duration | {"le": "0.0025"}) == 0
    assert registry.get_sample_value("mnist_request_duration_seconds_bucket", duration | {"le": "0.005"}) == 3


def test_requests_are_written_a_few_at_a_time_without_being_asked_for():
    metrics = Metrics(CollectorRegistry())
    written = []
    for number in range(TURNS):
        tally = metrics.tallies.add(lambda values, number=number: written.append((number, values)))
        tally.note(1)
    counts = []
    for _ in range(TURNS):
        metrics.request("http", "GET", "/livez", "", "200", 0.1)
        counts.append(len(written))
    assert counts == list(range(1, TURNS + 1))
    assert sorted(written) == [(number, [1]) for number in range(TURNS)]


def test_durations_from_a_tenth_of_a_millisecond_to_ten_seconds_fall_into_different_buckets():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.request("http", "GET", "/livez", "", "200", 0.00008)
    metrics.request("http", "GET", "/livez", "", "200", 9.0)
    labels = {"protocol": "http", "route": "/livez"}
    assert registry.get_sample_value("mnist_request_duration_seconds_bucket", labels | {"le": "0.0001"}) == 1
    assert registry.get_sample_value("mnist_request_duration_seconds_bucket", labels | {"le": "5.0"}) == 1
    assert registry.get_sample_value("mnist_request_duration_seconds_bucket", labels | {"le": "10.0"}) == 2


def test_both_expositions_parse_and_hold_every_family():
    registry = CollectorRegistry()
    Metrics(registry).request("http", "GET", "/livez", "", "200", 0.1)
    prometheus, prometheus_type = expose(registry, "text/plain")
    openmetrics, openmetrics_type = expose(registry, "application/openmetrics-text; version=1.0.0")
    assert prometheus_type.startswith("text/plain")
    assert openmetrics_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(openmetrics.decode())}
    assert {"mnist_requests", "mnist_request_duration_seconds", "mnist_model_info", "mnist_drift_index"} <= names
    assert {family.name for family in parse_prometheus(prometheus.decode())} >= names


def test_workers_are_added_up_and_the_dead_leave_their_counts_but_no_ghosts(tmp_path: Path):
    for requests in ("3", "4"):
        run(WORKER, tmp_path, requests)
    text = run(SCRAPE, tmp_path, "text/plain")
    found = samples(text)
    (total,) = [value for name, value in found.items() if name.startswith("mnist_requests_total")]
    assert total == 7
    assert found["mnist_workers[]"] == 1
    assert "pid=" not in text
    assert not [name for name in found if name.startswith("mnist_requests_in_progress")]


def test_openmetrics_of_several_workers_parses_too(tmp_path: Path):
    run(WORKER, tmp_path, "2")
    names = {family.name for family in parse_openmetrics(run(SCRAPE, tmp_path, "application/openmetrics-text"))}
    assert "mnist_requests" in names


def test_the_count_of_fifty_dead_workers_stays_and_never_falls(tmp_path: Path):
    run(WORKER, tmp_path, "2")
    for path in list(tmp_path.glob("counter_*.db")) + list(tmp_path.glob("histogram_*.db")):
        for pid in range(9_000_000, 9_000_049):
            (tmp_path / f"{path.stem.rpartition('_')[0]}_{pid}.db").write_bytes(path.read_bytes())
    found = samples(run(SCRAPE, tmp_path, "text/plain"))
    (total,) = [value for name, value in found.items() if name.startswith("mnist_requests_total")]
    assert total == 100


def test_a_process_that_asks_for_all_gets_the_counts_of_every_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(WORKER, tmp_path, "3")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    live = list(tmp_path.glob("gauge_live*.db"))
    assert live
    found = samples(expose(CollectorRegistry(), "text/plain")[0].decode())
    assert [value for name, value in found.items() if name.startswith("mnist_requests_total")] == [3]
    assert not any(path.exists() for path in live)


def test_gauges_of_a_worker_that_lives_are_kept(tmp_path: Path):
    run(WORKER, tmp_path, "1")
    (dead,) = {path.stem.rpartition("_")[2] for path in tmp_path.glob("gauge_livesum_*.db")}
    for path in tmp_path.glob("gauge_livesum_*.db"):
        path.rename(path.with_name(path.name.replace(dead, str(os.getpid()))))
    found = samples(run(SCRAPE, tmp_path, "text/plain"))
    assert found["mnist_workers[]"] == 2
