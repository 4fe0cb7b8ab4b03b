"""The manifests fit the API's schemas, each other and the service."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from serving.settings import VARIABLES, Settings, read_settings
from serving.worker import Worker
from tests.deploy.manifests import (
    FOLDER,
    OPERATOR_KINDS,
    Manifests,
    check,
    check_hardened,
    environ,
    memory_bytes,
    places,
    pod,
    render,
    render_with,
)
from tests.deploy.tools import DEPLOY, documents

PORTS = {
    name: Settings.model_fields[field].default
    for name, field in (("http", "port"), ("http-v2", "v2_port"), ("grpc", "grpc_port"))
}
INFERENCE_SERVICE = FOLDER / "kserve" / "inference-service.yaml"


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def overlay(request: pytest.FixtureRequest) -> Manifests:
    return {"name": request.param} | render(FOLDER / request.param)


@pytest.fixture
def inference_service() -> Any:
    (document,) = documents(INFERENCE_SERVICE)
    return document


def probes(document: Any) -> Iterator[tuple[str, Any]]:
    (container,) = pod(document)["containers"]
    yield from ((name, container[name]) for name in ("startupProbe", "livenessProbe", "readinessProbe"))


def check_pod(document: Any) -> None:
    """Assert what every pod of the service must hold, however it is deployed."""
    check_hardened(document)
    settings = read_settings(environ(document))
    assert set(environ(document)) <= set(VARIABLES)
    assert pod(document)["terminationGracePeriodSeconds"] > settings.drain_s + settings.stop_s
    assert places(document) == ["/tmp"]
    (container,) = pod(document)["containers"]
    assert int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30 > memory_bytes(settings)


async def check_probes_against_the_app(document: Any, live: str, ready: str, port: str | int) -> None:
    paths = {name: probe["httpGet"]["path"] for name, probe in probes(document)}
    assert paths == {"startupProbe": live, "livenessProbe": live, "readinessProbe": ready}
    assert {probe["httpGet"]["port"] for _, probe in probes(document)} == {port}
    transport = httpx.ASGITransport(Worker(read_settings(environ(document))).app)
    async with httpx.AsyncClient(transport=transport, base_url="http://reader") as client:
        assert (await client.get(live)).status_code == 200
        # Nothing is loaded yet: it lives and is not ready.
        assert (await client.get(ready)).status_code == 503


def test_an_overlay_fits_the_schemas(overlay: Manifests):
    known = [document for kind, document in overlay.items() if kind not in {"name", *OPERATOR_KINDS}]
    assert {document["kind"] for document in known} == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }
    for document in known:
        check(document)


def kserve_finds(path: Path) -> str:
    """Return what KServe's types have against an inference service: nothing, or the error."""
    command = [sys.executable, "-m", "tests.deploy.kserve_check", str(path), "V1beta1InferenceService"]
    checked = subprocess.run(command, cwd=DEPLOY.parent, capture_output=True, text=True, check=False, timeout=120)
    return checked.stderr if checked.returncode else ""


def test_an_inference_service_fits_the_types_of_kserve():
    assert kserve_finds(INFERENCE_SERVICE) == ""


def test_an_inference_service_that_does_not_fit_is_refused(inference_service: Any, tmp_path: Path):
    inference_service["spec"]["predictor"]["minReplica"] = 2
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(inference_service), encoding="utf-8")
    assert "minReplica: V1beta1PredictorSpec has no such field" in kserve_finds(tmp_path / "wrong.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.update(replica=1), "'replica' was unexpected"),
        (lambda spec: spec["template"]["spec"].update(terminationGracePeriodSeconds="60"), "'60' is not of type"),
        (lambda spec: spec.pop("template"), "'template' is a required property"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(overlay: Manifests, change: Any, message: str):
    deployment = copy.deepcopy(overlay["Deployment"])
    change(deployment["spec"])
    with pytest.raises(kubernetes_validate.ValidationError, match=message):
        check(deployment)


def test_a_pod_is_hardened_bounded_and_outlives_its_drain(overlay: Manifests):
    check_pod(overlay["Deployment"])


def test_an_inference_services_pod_is_hardened_bounded_and_outlives_its_drain(inference_service: Any):
    check_pod(inference_service)
    (container,) = pod(inference_service)["containers"]
    assert container["name"] == "kserve-container"
    assert str(container["ports"][0]["containerPort"]) == environ(inference_service)["V2_PORT"]


async def test_probes_ask_what_the_service_answers(overlay: Manifests):
    await check_probes_against_the_app(overlay["Deployment"], "/livez", "/readyz", "http")


async def test_an_inference_services_probes_ask_what_the_service_answers(inference_service: Any):
    await check_probes_against_the_app(inference_service, "/v2/health/live", "/v2/health/ready", 8000)


def test_the_ports_are_those_on_which_it_listens(overlay: Manifests):
    (container,) = pod(overlay["Deployment"])["containers"]
    settings = read_settings(environ(overlay["Deployment"]))
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "http": settings.port,
        "http-v2": settings.v2_port,
        "grpc": settings.grpc_port,
    }
    assert {port["targetPort"]: port["port"] for port in overlay["Service"]["spec"]["ports"]} == PORTS


def test_every_selector_finds_the_pods(overlay: Manifests):
    labels = overlay["Deployment"]["spec"]["template"]["metadata"]["labels"]
    spreads = pod(overlay["Deployment"])["topologySpreadConstraints"]
    selectors = [
        overlay["Deployment"]["spec"]["selector"]["matchLabels"],
        overlay["Service"]["spec"]["selector"],
        overlay["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        overlay["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in spreads),
    ]
    assert len(selectors) == 6
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    assert {spread["topologyKey"] for spread in spreads} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def test_the_network_policy_opens_its_ports_and_no_way_out(overlay: Manifests):
    spec = overlay["NetworkPolicy"]["spec"]
    clients, monitoring = spec["ingress"]
    assert [port["port"] for port in clients["ports"]] == list(PORTS)
    assert {"podSelector": {}} in clients["from"]
    assert [port["port"] for port in monitoring["ports"]] == ["http"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec.get("egress", []) == []


def test_the_service_monitor_scrapes_the_service(overlay: Manifests):
    spec = overlay["ServiceMonitor"]["spec"]
    assert spec["selector"]["matchLabels"].items() <= overlay["Service"]["metadata"]["labels"].items()
    (endpoint,) = spec["endpoints"]
    assert endpoint["port"] in {port["name"] for port in overlay["Service"]["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"


def test_the_operator_gets_the_rules_that_are_tested_for_prometheus(overlay: Manifests):
    (rules,) = documents(DEPLOY / "prometheus/rules.yaml")
    assert overlay["PrometheusRule"]["spec"] == rules
    # Alerts ask for this job; the operator calls it after the service.
    assert 'up{job="mnist-reader"}' in str(rules)
    assert overlay["Service"]["metadata"]["name"] == "mnist-reader"


def test_the_autoscaler_alone_sets_the_number_of_pods(overlay: Manifests):
    spec = overlay["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": overlay["Deployment"]["metadata"]["name"],
    }
    assert "replicas" not in overlay["Deployment"]["spec"]
    assert 2 <= spec["minReplicas"] < spec["maxReplicas"]


def test_one_busy_event_loop_is_enough_to_scale(inference_service: Any):
    document = render(FOLDER / "cpu")
    (metric,) = document["HorizontalPodAutoscaler"]["spec"]["metrics"]
    percent = metric["resource"]["target"]["averageUtilization"]
    (container,) = pod(document["Deployment"])["containers"]
    assert percent / 100 * float(container["resources"]["requests"]["cpu"]) < 0.9
    assert percent == inference_service["spec"]["predictor"]["scaleTarget"]


def test_the_autoscaler_follows_the_queue_where_its_metric_is_by_the_name_that_the_adapter_gives(tmp_path: Path):
    (adapter,) = documents(DEPLOY / "prometheus" / "adapter.yaml")
    queue, load = adapter["rules"]["custom"][0]["name"]["as"], "cpu"

    def followed(manifests: Manifests) -> list[str]:
        autoscaler = manifests["HorizontalPodAutoscaler"]
        check(autoscaler)
        metrics = autoscaler["spec"]["metrics"]
        return [each["pods"]["metric"]["name"] if "pods" in each else each["resource"]["name"] for each in metrics]

    # Kubernetes takes no pod away while a metric is missing.
    assert followed(render(FOLDER / "cpu")) == [load]
    assert followed(render_with("queue-metric", "cpu", tmp_path)) == [queue, load]
    assert followed(render(FOLDER / "gpu")) == [queue]


def test_only_the_gpu_overlay_asks_for_a_gpu_and_insists_on_it(overlay: Manifests):
    (container,) = pod(overlay["Deployment"])["containers"]
    asks = "nvidia.com/gpu" in container["resources"]["limits"]
    device = read_settings(environ(overlay["Deployment"])).device
    assert (asks, device) == {"cpu": (False, "auto"), "gpu": (True, "cuda")}[overlay["name"]]
    assert container["image"].endswith("-gpu") == asks
