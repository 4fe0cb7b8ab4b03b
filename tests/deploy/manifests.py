"""Reads manifests as `kubectl apply` sends them, and holds them against the schemas of Kubernetes."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from serving.settings import Settings
from tests.deploy.tools import DEPLOY, program

FOLDER = DEPLOY / "kubernetes"

# The first release in which every field of ours is stable, such as podFailurePolicy, and the newest with schemas.
RELEASES = ("1.31", "1.37")

# Of the Prometheus operator: Kubernetes has no schemas for these.
OPERATOR_KINDS = {"ServiceMonitor", "PrometheusRule"}

PODS_OF = {
    "Deployment": ("spec", "template", "spec"),
    "Job": ("spec", "template", "spec"),
    "InferenceService": ("spec", "predictor"),
}

Manifests = dict[str, Any]


def render(folder: Path) -> Manifests:
    """Return the manifests of an overlay by kind, as `kubectl apply -k` sends them."""
    command = [program("kubectl"), "kustomize", str(folder)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert rendered.returncode == 0, rendered.stderr
    return {document["kind"]: document for document in yaml.safe_load_all(rendered.stdout)}


def render_with(component: str, name: str, folder: Path) -> Manifests:
    """Return the manifests of an overlay to which a component was added as its head says, in a copy in the folder."""
    shutil.copytree(FOLDER, folder / "kubernetes")
    file = folder / "kubernetes" / name / "kustomization.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("  - ../prometheus-operator\n", f"  - ../prometheus-operator\n  - ../{component}\n"))
    return render(file.parent)


def check(document: Any) -> None:
    """Refuse what the schemas do not know.

    Raises:
        kubernetes_validate.ValidationError: says where.
    """
    for release in RELEASES:
        kubernetes_validate.validate(document, release, strict=True)


def pod(document: Any) -> Any:
    """Return the pod that a workload makes."""
    for key in PODS_OF[document["kind"]]:
        document = document[key]
    return document


def environ(document: Any) -> dict[str, str]:
    """Return the environment of a workload's only container."""
    (container,) = pod(document)["containers"]
    return {entry["name"]: entry["value"] for entry in container.get("env", ())}


def check_hardened(document: Any) -> None:
    """Assert what every pod of ours must hold, however it is deployed."""
    (container,) = pod(document)["containers"]
    assert pod(document)["automountServiceAccountToken"] is False
    assert pod(document)["enableServiceLinks"] is False
    assert pod(document)["securityContext"]["runAsNonRoot"] is True
    assert pod(document)["securityContext"]["runAsUser"] > 0
    assert pod(document)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod(document)["volumes"]
    }
    for part in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(container["resources"][part])


def memory_bytes(settings: Settings) -> int:
    """Return what an instance may take: idle 231 MB, all bodies that it lets in, a WebP of 25 megapixels, its /tmp."""
    per_worker = 231_000_000 + 2 * settings.max_pending_bytes + 400_000_000
    return settings.workers * per_worker + 128 * 2**20


def places(document: Any) -> list[str]:
    """Return where volumes are mounted in a workload's only container."""
    (container,) = pod(document)["containers"]
    return [mount["mountPath"] for mount in container["volumeMounts"]]
