"""The image with the environment, the user and the secrets that the manifests for Kubernetes give it."""

import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet
import pytest

from tests.certificates import write_certificate
from tests.deploy.manifests import FOLDER, environ, pod, render, render_with
from tests.deploy.tools import documents
from tests.image.engine import HARDENED, IMAGE, SCORING, Container, engine, running
from tests.ports import free_ports

SECRETS = {"tokens": "ask\nscrape\n", "admin-tokens": "change\n", "scrape-token": "scrape"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the secrets `access` and `tls`, which only root and the pod's group may read."""
    folder = tmp_path_factory.mktemp("secrets")
    for name in ("access", "tls"):
        (folder / name).mkdir()
    write_certificate(folder / "tls", "mnist-reader")
    for name, text in SECRETS.items():
        (folder / "access" / name).write_text(text, encoding="utf-8")
    for path in folder.rglob("*"):
        if os.geteuid() == 0:
            os.chown(path, 0, 10001)
        path.chmod(0o750 if path.is_dir() else 0o440)
    return folder


def user(deployment: Any) -> str:
    context = pod(deployment)["securityContext"]
    return f"{context['runAsUser']}:{context['runAsGroup']}"


def settings(deployment: Any, **changed: str) -> list[str]:
    """Return the options that give a container a pod's environment, but for its ports; nobody balances load here."""
    variables = environ(deployment) | {"MNIST_DRAIN_S": "1"} | changed
    return [f"-e{name}={value}" for name, value in variables.items() if name not in ("PORT", "V2_PORT", "GRPC_PORT")]


@pytest.fixture(scope="module")
def guarded(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Container, int]]:
    """Return a container behind tokens and TLS, and the administrators' port."""
    deployment = render_with("access", "cpu", tmp_path_factory.mktemp("manifests"))["Deployment"]
    (admin_port,) = free_ports(1)
    mounts = [f"-v={secrets / name}:/etc/mnist-reader/{name}:ro" for name in ("access", "tls")]
    given = settings(deployment, MNIST_ADMIN_PORT=str(admin_port))
    with running("guarded", *given, *mounts, user=user(deployment), ready=Container.healthy) as container:
        yield container, admin_port


def test_the_overlay_starts_predicts_and_stops(seven: bytes):
    deployment = render(FOLDER / "cpu")["Deployment"]
    with running("overlay", *settings(deployment), user=user(deployment)) as container:
        assert httpx.post(container.url("/predict"), content=seven).json()["predictions"][0]["digit"] == 7
        engine("stop", "-t", "40", container.name)
        assert container.exit_code() == 0


@pytest.mark.skipif(not SCORING, reason="`make image-test SCORING=yes` builds the image that scores files")
def test_the_job_scores_the_files_of_its_volume(tmp_path: Path, seven: bytes):
    (job,) = documents(FOLDER / "score-job.yaml")
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "seven.png").write_bytes(seven)
    # What fsGroup does in a cluster.
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, -1, pod(job)["securityContext"]["fsGroup"])
        path.chmod(0o770 if path.is_dir() else 0o660)
    given = ["--rm", *HARDENED, "--network", "none", "--user", user(job), "-v", f"{tmp_path}:/data"]
    engine("run", *given, IMAGE, *pod(job)["containers"][0]["args"])
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["rows"] == 1
    assert pyarrow.parquet.read_table(tmp_path / "digits.parquet")["digit"].to_pylist() == [7]


def test_with_access_callers_need_tls_and_a_token(guarded: tuple[Container, int], secrets: Path, seven: bytes):
    container, _ = guarded
    trust = ssl.create_default_context(cafile=secrets / "tls" / "tls.crt")
    with httpx.Client(base_url=f"https://127.0.0.1:{container.http}", verify=trust) as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/predict", content=seven).status_code == 401
        answer = client.post("/predict", content=seven, headers={"authorization": "Bearer ask"})
        assert answer.json()["predictions"][0]["digit"] == 7


def test_with_access_prometheus_scrapes_the_administrators_port_by_its_token(
    guarded: tuple[Container, int], secrets: Path
):
    container, admin_port = guarded
    trust = ssl.create_default_context(cafile=secrets / "tls" / "tls.crt")
    scrape = {"authorization": f"Bearer {SECRETS['scrape-token']}"}
    answers = [
        httpx.get(f"https://127.0.0.1:{port}/metrics", headers=scrape, verify=trust)
        for port in (admin_port, container.http, container.v2)
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 404]
    assert "mnist_workers 1.0" in answers[0].text
