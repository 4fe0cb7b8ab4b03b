"""With the component for tokens, TLS and the administrators' port, an overlay is whole and fits the service."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from serving.settings import VARIABLES, read_settings
from tests.deploy.manifests import (
    FOLDER,
    OPERATOR_KINDS,
    Manifests,
    check,
    check_hardened,
    environ,
    places,
    pod,
    render_with,
)
from tests.deploy.tools import documents


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def overlay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    return render_with("access", request.param, tmp_path_factory.mktemp("manifests"))


def test_it_fits_the_schemas(overlay: Manifests):
    checked = [document for kind, document in overlay.items() if kind not in OPERATOR_KINDS]
    assert len(checked) == 5
    for document in checked:
        check(document)


def test_a_pod_reads_its_secrets_from_volumes_that_its_group_may_read(overlay: Manifests):
    deployment = overlay["Deployment"]
    check_hardened(deployment)
    assert set(environ(deployment)) <= set(VARIABLES)
    settings = read_settings(environ(deployment))
    files = (settings.token_file, settings.admin_token_file, settings.tls_cert, settings.tls_key)
    assert {str(Path(file).parent) for file in files} == set(places(deployment)) - {"/tmp"}
    secrets = [volume["secret"] for volume in pod(deployment)["volumes"] if "secret" in volume]
    assert {secret["secretName"] for secret in secrets} == {"mnist-reader-access", "mnist-reader-tls"}
    assert {secret["defaultMode"] for secret in secrets} == {0o440}
    assert pod(deployment)["securityContext"]["fsGroup"] > 0


def test_every_probe_speaks_tls(overlay: Manifests):
    (container,) = pod(overlay["Deployment"])["containers"]
    probes = [container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert {(probe["scheme"], probe["port"]) for probe in probes} == {("HTTPS", "http")}


def test_metrics_are_asked_for_where_they_are_by_whom_they_are_opened_to(overlay: Manifests):
    settings = read_settings(environ(overlay["Deployment"]))
    (container,) = pod(overlay["Deployment"])["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["admin"] == settings.admin_port
    assert {port["targetPort"] for port in overlay["Service"]["spec"]["ports"]} == set(ports)
    (endpoint,) = overlay["ServiceMonitor"]["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["scheme"], endpoint["path"]) == ("admin", "https", "/metrics")
    clients, monitoring = overlay["NetworkPolicy"]["spec"]["ingress"]
    assert "admin" not in {port["port"] for port in clients["ports"]}
    assert monitoring["ports"] == [{"port": "admin"}]


def test_prometheus_shows_a_token_from_the_secret_that_the_head_describes(overlay: Manifests):
    head = (FOLDER / "access" / "kustomization.yaml").read_text(encoding="utf-8")
    (endpoint,) = overlay["ServiceMonitor"]["spec"]["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    settings = read_settings(environ(overlay["Deployment"]))
    files = {Path(settings.token_file).name, Path(settings.admin_token_file).name, credentials["key"]}
    created = head.partition(f"create secret generic {credentials['name']}")[2].partition("\n")[0]
    assert files == {option.removeprefix("--from-file=") for option in created.split()}
    assert documents(FOLDER / "access" / "kustomization.yaml")[0]["kind"] == "Component"


def test_the_commands_of_the_head_make_a_scrape_token_that_a_header_can_hold(tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    head = (FOLDER / "access" / "kustomization.yaml").read_text(encoding="utf-8")
    commands = re.findall(r"^# +(openssl .+)$", head, re.MULTILINE)
    for command in commands:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True, timeout=60)
    token = (tmp_path / "scrape-token").read_text(encoding="ascii")
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert (tmp_path / "tokens").read_text(encoding="ascii") == token + "\n"
    assert token not in (tmp_path / "admin-tokens").read_text(encoding="ascii")
