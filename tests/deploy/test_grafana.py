"""The dashboard names what exists, and a real Prometheus that scrapes the real service has data for its queries."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.test_prometheus import check_expression, check_recorded, rules
from tests.deploy.tools import DEPLOY, documents, program
from tests.e2e.server import LIMIT_S, Server, pixels, wait_until
from tests.ports import free_ports
from tests.serving.tiny_model import write_tiny_model

DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/mnist-reader.json").read_text(encoding="utf-8"))
PANELS = DASHBOARD["panels"]
QUERIES = {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
# The least window that holds two scrapes with certainty.
WINDOW = "10s"


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_reads_what_exists(query: str):
    assert check_expression(query) + check_recorded(query) > 0


def test_panels_have_a_unit_a_place_and_the_provisioned_data_source():
    (source,) = documents(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS}) == len(PANELS)


class Prometheus:
    """A Prometheus of our own that scrapes one instance every second, with the product's rules."""

    def __init__(self, folder: Path, target: str):
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        config = documents(DEPLOY / "prometheus/prometheus.yaml")[0]
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(DEPLOY / "prometheus/rules.yaml")]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def get(self, path: str, **parameters: str) -> Any:
        try:
            answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=5)
        except httpx.TransportError:
            return {"data": {}}
        # 503 and a text until its storage is open.
        return {"data": {}} if answer.status_code == 503 else answer.json()

    def values(self, query: str) -> list[float]:
        """Return the numbers of an instant query; NaN is no number."""
        answer = self.get("query", query=query)
        found = [float(row["value"][1]) for row in answer["data"].get("result", ())]
        return [number for number in found if number == number]

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._log.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program("prometheus")
    models = tmp_path_factory.mktemp("models")
    write_tiny_model(models, "tiny", 1)
    folder = tmp_path_factory.mktemp("server")
    running = Server(folder, models, MNIST_DEFAULT_MODEL="tiny", MNIST_DRIFT_WINDOW="100")
    try:
        yield running.wait_ready()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{server.port}")
    try:
        wait_until(lambda: running.values("up") == [1.0])
        yield running
    finally:
        running.kill()


def send_until(server: Server, images: Any, condition: Callable[[], bool]) -> bool:
    """Send images, blank ones and bad requests until the condition holds; tell whether it did."""
    stop = time.monotonic() + LIMIT_S
    with httpx.Client(base_url=server.url) as client:
        while time.monotonic() < stop:
            for image in images:
                assert client.post("/predict", content=pixels(image)).status_code == 200
            assert client.post("/predict", content=pixels(images[0] * 0)).status_code == 200
            assert client.post("/predict", json={"pixels": [1]}).status_code == 400
            if condition():
                return True
    return False


def test_every_query_and_rule_has_data(server: Server, prometheus: Prometheus, test_digits: Any):
    queries = {title: query.replace("$job", "mnist-reader") for title, query in QUERIES.items()}
    queries = {title: query.replace("$__rate_interval", WINDOW) for title, query in queries.items()}
    # Nothing has failed, so there is no ratio of faults.
    recorded = [rule["record"] for rule in rules() if "record" in rule and "faults" not in rule["record"]]
    missing = queries | {record: record for record in recorded}

    def complete() -> bool:
        for title, query in list(missing.items()):
            if prometheus.values(query):
                del missing[title]
        return not missing

    images, _ = test_digits
    assert send_until(server, images[:20], complete), sorted(missing)


def test_the_rules_are_evaluated(prometheus: Prometheus):
    groups = prometheus.get("rules")["data"]["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    wait_until(lambda: all(r["health"] == "ok" for g in prometheus.get("rules")["data"]["groups"] for r in g["rules"]))


def test_the_same_digits_over_and_over_are_a_drift_and_nothing_else_is_wrong(
    server: Server, prometheus: Prometheus, test_digits: Any
):
    def only_drift() -> bool:
        alerts = prometheus.get("alerts")["data"].get("alerts", ())
        return {(alert["labels"]["alertname"], alert["state"]) for alert in alerts} == {("MnistReaderDrift", "pending")}

    images, _ = test_digits
    assert send_until(server, images[:20], only_drift), prometheus.get("alerts")
