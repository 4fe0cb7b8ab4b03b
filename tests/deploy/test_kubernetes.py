"""The manifests fit the API's types, each other and the service."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from serving.settings import VARIABLES, Settings, read_settings
from serving.worker import Worker
from tests.deploy.schema import check
from tests.deploy.tools import DEPLOY, documents, program

FOLDER = DEPLOY / "kubernetes"
PORTS = {
    name: Settings.model_fields[field].default
    for name, field in (("http", "port"), ("http-v2", "v2_port"), ("grpc", "grpc_port"))
}
PODS_OF = {"Deployment": ("spec", "template", "spec"), "InferenceService": ("spec", "predictor")}

Manifests = dict[str, Any]


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def overlay(request: pytest.FixtureRequest) -> Manifests:
    """Return the manifests of an overlay by kind, as `kubectl apply -k` sends them."""
    command = [program("kubectl", in_ci=False), "kustomize", str(FOLDER / request.param)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return {"name": request.param} | {document["kind"]: document for document in yaml.safe_load_all(rendered)}


@pytest.fixture
def inference_service() -> Any:
    (document,) = documents(FOLDER / "kserve" / "inference-service.yaml")
    return document


def kind_of(document: Any) -> str:
    version = document["apiVersion"].rpartition("/")[2]
    return f"{version[0].upper()}{version[1:]}{document['kind']}"


def pod(document: Any) -> Any:
    for key in PODS_OF[document["kind"]]:
        document = document[key]
    return document


def environ(document: Any) -> dict[str, str]:
    (container,) = pod(document)["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def probes(document: Any) -> Iterator[tuple[str, Any]]:
    (container,) = pod(document)["containers"]
    yield from ((name, container[name]) for name in ("startupProbe", "livenessProbe", "readinessProbe"))


def check_pod(document: Any) -> None:
    """Assert what every pod of ours must hold, however it is deployed."""
    (container,) = pod(document)["containers"]
    settings = read_settings(environ(document))
    assert set(environ(document)) <= set(VARIABLES)
    assert pod(document)["terminationGracePeriodSeconds"] > settings.drain_s + settings.stop_s
    assert pod(document)["enableServiceLinks"] is False
    assert pod(document)["securityContext"]["runAsNonRoot"] is True
    assert pod(document)["securityContext"]["runAsUser"] > 0
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod(document)["volumes"]
    }
    for part in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(container["resources"][part])


async def check_probes_against_the_app(document: Any, live: str, ready: str, port: str | int) -> None:
    paths = {name: probe["httpGet"]["path"] for name, probe in probes(document)}
    assert paths == {"startupProbe": live, "livenessProbe": live, "readinessProbe": ready}
    assert {probe["httpGet"]["port"] for _, probe in probes(document)} == {port}
    transport = httpx.ASGITransport(Worker(read_settings(environ(document))).app)
    async with httpx.AsyncClient(transport=transport, base_url="http://reader") as client:
        assert (await client.get(live)).status_code == 200
        # Nothing is loaded yet: it lives and is not ready.
        assert (await client.get(ready)).status_code == 503


def test_an_overlay_fits_the_types_of_the_api(overlay: Manifests):
    known = [document for kind, document in overlay.items() if kind not in ("name", "ServiceMonitor")]
    assert {document["kind"] for document in known} == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }
    for document in known:
        check(document, kind_of(document), document["kind"])


def test_an_inference_service_fits_the_types_of_kserve(inference_service: Any):
    path = FOLDER / "kserve" / "inference-service.yaml"
    command = [sys.executable, "-m", "tests.deploy.kserve_check", str(path), kind_of(inference_service)]
    checked = subprocess.run(command, cwd=DEPLOY.parent, capture_output=True, text=True, check=False, timeout=120)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.update(replica=1), "replica: V1DeploymentSpec has no such field"),
        (lambda spec: spec["template"]["spec"].update(terminationGracePeriodSeconds="60"), "expected int, got '60'"),
        (lambda spec: spec.pop("template"), r"template\n  Field required"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(overlay: Manifests, change: Any, message: str):
    deployment = copy.deepcopy(overlay["Deployment"])
    change(deployment["spec"])
    with pytest.raises(ValueError, match=message):
        check(deployment, "V1Deployment")


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


def test_the_autoscaler_follows_the_queue_by_the_name_that_the_adapter_gives(overlay: Manifests):
    spec = overlay["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": overlay["Deployment"]["metadata"]["name"],
    }
    assert "replicas" not in overlay["Deployment"]["spec"]
    (adapter,) = documents(DEPLOY / "prometheus" / "adapter.yaml")
    assert spec["metrics"][0]["pods"]["metric"]["name"] == adapter["rules"]["custom"][0]["name"]["as"]
    assert 2 <= spec["minReplicas"] < spec["maxReplicas"]


def test_only_the_gpu_overlay_asks_for_a_gpu_and_insists_on_it(overlay: Manifests):
    (container,) = pod(overlay["Deployment"])["containers"]
    asks = "nvidia.com/gpu" in container["resources"]["limits"]
    device = read_settings(environ(overlay["Deployment"])).device
    assert (asks, device) == {"cpu": (False, "auto"), "gpu": (True, "cuda")}[overlay["name"]]
    assert container["image"].endswith("-gpu") == asks
