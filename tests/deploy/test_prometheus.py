"""The rules name what the service exposes, pass promtool, and a compose file wires everything together."""

import re
import subprocess
from typing import Any

import pytest

from serving.settings import Settings, read_settings
from tests.deploy.manifests import memory_bytes
from tests.deploy.tools import DEPLOY, ROOT, documents, program, sample_names

FOLDER = DEPLOY / "prometheus"
# A selector of one of our metrics, and the labels that it compares.
SELECTOR = re.compile(r"(?<![\w:])(mnist_\w+)(?:\{([^}]*)\})?")
# What Prometheus and the adapter add.
ADDED_LABELS = {"job", "instance", "namespace", "pod"}


def rules() -> list[dict[str, Any]]:
    (document,) = documents(FOLDER / "rules.yaml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def check_expression(expression: str) -> int:
    """Assert that every metric and label in an expression exists; return how many metrics it names."""
    known = sample_names()
    found = SELECTOR.findall(expression.replace("<<.LabelMatchers>>", ""))
    for name, matchers in found:
        assert name in known, expression
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= known[name] | ADDED_LABELS, expression
    return len(found)


def check_recorded(expression: str) -> int:
    """Assert that every recorded series in an expression is recorded; return how many it names."""
    found = re.findall(r"\bjob:mnist_\w+:\w+", expression)
    assert set(found) <= {rule["record"] for rule in rules() if "record" in rule}
    return len(found)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_rule_reads_metrics_that_exist(rule: dict[str, Any]):
    named = check_expression(rule["expr"]) + check_recorded(rule["expr"])
    assert named or "up{" in rule["expr"]


@pytest.mark.parametrize("expression", ["rate(mnist_request_total[5m])", 'mnist_workers{worker="1"}'])
def test_a_metric_or_label_that_does_not_exist_is_noticed(expression: str):
    with pytest.raises(AssertionError):
        check_expression(expression)


def test_every_rule_has_a_unit_test():
    text = (FOLDER / "rules-test.yaml").read_text(encoding="utf-8")
    names = [rule.get("record") or rule["alert"] for rule in rules()]
    untested = [name for name in names if name not in text]
    # The rate is a part of the ratio, which is tested by the alert on it.
    assert untested == ["job:mnist_faults:rate5m"]


def test_an_alert_says_how_bad_it_is_and_what_is_wrong():
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {alert["labels"]["severity"] for alert in alerts} == {"critical", "warning"}
    assert all(alert["annotations"]["summary"].endswith(".") for alert in alerts)


def test_the_adapter_reads_metrics_that_exist():
    (document,) = documents(FOLDER / "adapter.yaml")
    (rule,) = document["rules"]["custom"]
    assert check_expression(rule["seriesQuery"]) == 1
    assert check_expression(rule["metricsQuery"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yaml"), ("check", "rules", "rules.yaml"), ("test", "rules", "rules-test.yaml")],
)
def test_promtool_finds_no_fault(arguments: tuple[str, ...]):
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_wires_the_service_prometheus_and_grafana():
    (compose,) = documents(ROOT / "compose.yaml")
    services = compose["services"]
    reader = services["mnist-reader"]
    settings = read_settings(reader["environment"])
    assert reader["ports"] == [f"{port}:{port}" for port in (settings.port, settings.v2_port, settings.grpc_port)]
    assert int(reader["stop_grace_period"].removesuffix("s")) > settings.drain_s + settings.stop_s
    assert int(reader["mem_limit"].removesuffix("g")) * 2**30 > memory_bytes(settings)
    (scrape,) = documents(FOLDER / "prometheus.yaml")[0]["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == [f"mnist-reader:{Settings.model_fields['port'].default}"]
    (source,) = documents(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    assert source["url"] == "http://prometheus:9090"
    mounts = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())]
    assert all((ROOT / mount).is_dir() for mount in mounts if mount.startswith("./"))
    assert "/etc/prometheus/prometheus.yaml" in services["prometheus"]["command"][0]


def test_the_hosted_workflow_runs_what_is_run_here():
    (workflow,) = documents(ROOT / ".github/workflows/ci.yaml")
    (job,) = workflow["jobs"].values()
    assert {"run": ".ci/run"} in job["steps"]
    # A container in a container: it may start others, and their layers do not lie on its own.
    assert job["container"]["options"] == "--privileged"
    assert job["container"]["volumes"] == ["/mnt:/var/tmp"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
