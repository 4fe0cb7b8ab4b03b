"""The packages that the image holds: all of them are used, and those that it leaves out are not missed."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.e2e.conftest import Start
from tests.e2e.server import ROOT, Server, pixels, wait_until
from tests.e2e.test_grpc_lifecycle import connect, infer

REQUIREMENTS = ROOT / "requirements"

# Every process of the service tells, again and again, what it has imported.
TELL = """
import os, sys, threading
def tell():
    while True:
        path = os.environ["TOLD"] + "/" + str(os.getpid())
        with open(path + ".new", "w") as file:
            file.write(" ".join(name.partition(".")[0] for name in list(sys.modules)))
        os.rename(path + ".new", path + ".told")
        threading.Event().wait(0.5)
threading.Thread(target=tell, daemon=True).start()
"""


def names_in(path: Path) -> set[str]:
    lines = re.findall(r"^\w.*?(?= \\$|$)", path.read_text(encoding="utf-8"), re.MULTILINE)
    needed = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate()]
    return {canonicalize_name(each.name) for each in needed}


LEFT_OUT = names_in(REQUIREMENTS / "left-out.in")


def test_what_is_left_out_would_be_there():
    assert names_in(REQUIREMENTS / "serving-cpu.txt") >= LEFT_OUT


def test_the_numbers_of_packages_are_those_that_are_told():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    own = {
        canonicalize_name(Requirement(line).name) for line in project["dependencies"] + extras["cpu"] + extras["otlp"]
    }
    held = names_in(REQUIREMENTS / "serving-cpu.txt") - LEFT_OUT
    assert own <= held
    told = f"imports: {len(held)} packages, {len(own)} of its own and what BentoML imports. Nine more,"
    assert told in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert len(LEFT_OUT) == 9


def modules_of(distributions: set[str]) -> Iterator[str]:
    for module, owners in importlib.metadata.packages_distributions().items():
        if {canonicalize_name(owner) for owner in owners} <= distributions:
            yield module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of modules that stand before those of the environment: what is left out cannot be imported."""
    made = tmp_path_factory.mktemp("before")
    for module in modules_of(LEFT_OUT):
        (made / f"{module}.py").write_text(f"raise ModuleNotFoundError('{module} is left out')\n")
    (made / "sitecustomize.py").write_text(TELL)
    return made


@pytest.fixture(scope="module")
def server(start: Start, folder: Path) -> Server:
    # With traces, whose exporter is for who switches them on; nobody is there to take them.
    traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    return start(PYTHONPATH=str(folder), TOLD=str(folder), **traces).wait_ready()


def test_the_service_runs_without_what_the_image_leaves_out(server: Server):
    diagonal = np.eye(28, dtype=np.uint8)
    assert httpx.post(f"{server.url}/predict", content=pixels(diagonal)).status_code == 200
    assert httpx.post(f"{server.url}/classify", json={"images": diagonal.tolist()}).status_code == 200
    assert [server.get(path).status_code for path in ("/docs", "/openapi.json", "/metrics", "/")] == [200] * 4
    with connect(server) as channel:
        assert infer(channel, 0)
    health = [sys.executable, "-m", "serving", "health", "--timeout-s", "20"]
    assert subprocess.run(health, env=server.environ, cwd=ROOT, check=False).returncode == 0
    assert "is left out" not in server.log


def test_every_other_package_of_the_image_is_imported(server: Server, folder: Path):
    pids = {server.process.pid, *server.worker_pids()}
    imported = set()
    for pid in pids:
        (folder / f"{pid}.told").unlink(missing_ok=True)
        wait_until((folder / f"{pid}.told").exists)
        imported |= set((folder / f"{pid}.told").read_text(encoding="utf-8").split())
    owners = importlib.metadata.packages_distributions()
    used = {canonicalize_name(owner) for module in imported for owner in owners.get(module, [])}
    assert names_in(REQUIREMENTS / "serving-cpu.txt") - LEFT_OUT - used == set()
