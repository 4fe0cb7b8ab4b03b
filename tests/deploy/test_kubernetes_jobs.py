"""The jobs for offline scoring fit the schemas and the command line."""

import re
import shlex
from typing import Any

import pytest

from serving.cli import build_parser
from tests.deploy.manifests import FOLDER, check, check_hardened, places, pod
from tests.deploy.tools import ROOT, documents
from tests.test_house import requirements


@pytest.fixture
def job() -> Any:
    (document,) = documents(FOLDER / "score-job.yaml")
    return document


@pytest.fixture
def ray_job() -> Any:
    (document,) = documents(FOLDER / "score-ray.yaml")
    return document


def scored(words: list[str]) -> Any:
    return build_parser("serving", "").parse_args(words)


def test_a_job_fits_the_schemas(job: Any):
    check(job)


def test_a_job_is_hardened_and_writes_to_its_volume_alone(job: Any):
    check_hardened(job)
    assert places(job) == ["/data", "/tmp"]


def test_a_job_goes_on_where_its_last_pod_was_and_stops_at_what_another_try_does_not_mend(job: Any):
    (container,) = pod(job)["containers"]
    arguments = scored(container["args"])
    assert (arguments.resume, arguments.engine) == (True, "local")
    assert all(str(path).startswith("/data/") for path in (arguments.output, arguments.summary, *arguments.inputs))
    failing = [rule["onExitCodes"] for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert failing == [{"containerName": container["name"], "operator": "In", "values": [1, 2, 3]}]
    assert pod(job)["restartPolicy"] == "Never"


def test_a_ray_jobs_pods_fit_the_schemas(ray_job: Any):
    cluster = ray_job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert len(groups) == 2
    for group in groups:
        check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": group["template"]["spec"]})


def test_a_ray_job_runs_a_command_that_exists_on_the_release_that_is_locked(ray_job: Any):
    words = shlex.split(ray_job["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "serving"]
    arguments = scored(words[3:])
    assert (arguments.engine, arguments.resume) == ("ray", True)
    lock = (ROOT / "requirements/dev.txt").read_text(encoding="utf-8")
    (version,) = [next(iter(pin.specifier)).version for pin in requirements(lock) if pin.name == "ray"]
    assert ray_job["spec"]["rayClusterSpec"]["rayVersion"] == version


def test_a_ray_job_sends_no_usage_statistics(ray_job: Any):
    (container,) = ray_job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
    assert re.fullmatch(r"ray\.io/v1", ray_job["apiVersion"])
