"""What the image says of itself, what is in it and what is not."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.tools import ROOT
from tests.image.engine import BASE_IMAGE, BILL, IMAGE, REVISION, RUNTIME, SCORING, engine
from tests.test_house import requirements

# What the CPU image may add to its base, in bytes.
LARGEST_ADDITION = 450_000_000

# Prints each file's path and size.
LIST_FILES = """
import json, os
found = {}
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = set(folders) - {"proc", "sys", "dev"}
    for name in names:
        path = os.path.join(folder, name)
        found[path] = os.lstat(path).st_size
print(json.dumps(found))
"""

SITE = re.compile(r"^/opt/venv/lib/python3[^/]*/site-packages/([^/]+?)(?:\\.libs|-[^/]*\\.dist-info)?(?:/|$)")


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return json.loads(engine("image", "inspect", IMAGE))[0]


@pytest.fixture(scope="module")
def files() -> dict[str, int]:
    options = ("--rm", "--user", "0", "--network", "none", "--entrypoint", "python3")
    return json.loads(engine("run", *options, IMAGE, "-c", LIST_FILES))


def image_size(name: str) -> int:
    return int(engine("image", "inspect", name, "--format", "{{.Size}}"))


def test_it_runs_as_a_number_that_is_not_root(facts):
    assert re.fullmatch(r"[1-9]\d*:0", facts["Config"]["User"])


def test_it_says_how_to_check_and_to_stop_it(facts):
    config = facts["Config"]
    assert (facts.get("Healthcheck") or config["Healthcheck"])["Test"] == ["CMD", "python3", "-m", "serving", "health"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert set(config["ExposedPorts"]) == {"3000/tcp", "8000/tcp", "8001/tcp"}


def test_it_says_what_it_is(facts):
    labels = facts["Config"]["Labels"]
    named = {name: labels[f"org.opencontainers.image.{name}"] for name in ("title", "licenses", "version", "revision")}
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert named == {"title": "mnist-reader", "licenses": "Apache-2.0", "version": version, "revision": REVISION}
    assert labels["org.opencontainers.image.description"]


def test_it_turns_telemetry_off(facts):
    assert {"BENTOML_DO_NOT_TRACK=True", "ORT_DISABLE_TELEMETRY=1"} <= set(facts["Config"]["Env"])


def test_it_holds_no_torch_compiler_installer_cache_or_test(files):
    packages = {match[1] for path in files if (match := SITE.match(path))}
    assert "onnxruntime" in packages
    assert packages & {"torch", "torchvision", "matplotlib", "ray", "pip", "setuptools", "pytest", "wheel"} == set()
    programs = {Path(path).name for path in files if re.match(r"^(/usr)?(/local)?/s?bin/", path)}
    assert programs & {"gcc", "cc", "g++", "c++", "ld", "as", "strip", "make", "git"} == set()
    assert [path for path in files if re.search(r"/\.cache/|^/(opt|app)/.*(/tests?/|\.whl$)", path)] == []
    # podman leaves an empty file where the build's settings were mounted.
    assert files.get("/etc/pip.conf", 0) == 0


@pytest.mark.parametrize("library", ["libcudart", "libcublas", "libcudnn", "libonnxruntime_providers_cuda"])
def test_cuda_is_once_in_the_gpu_image_and_not_in_the_other(files, library):
    found = [path for path in files if Path(path).name.startswith(f"{library}.so")]
    assert len(found) == {"cpu": 0, "gpu": 1}[RUNTIME], found


def test_it_holds_the_service_and_its_models_and_nothing_else_of_the_tree(files):
    ours = [path for path in files if path.startswith("/app/")]
    assert {path.split("/")[2] for path in ours} == {"serving", "models"}
    assert [path for path in ours if "/." in path] == []
    published = [path for path in (ROOT / "models").rglob("*.onnx") if not path.parent.name.startswith(".")]
    assert {path for path in ours if path.endswith(".onnx")} == {f"/app/{path.relative_to(ROOT)}" for path in published}


def test_its_models_are_those_of_their_list():
    options = ("--rm", "--network", "none", "--workdir", "/app/models", "--entrypoint", "sha256sum")
    engine("run", *options, IMAGE, "--strict", "--quiet", "-c", "SHA256SUMS")


def test_its_python_is_compiled(files):
    names = {
        match[1] + match[2] for path in files if (match := re.match(r"(.+/)__pycache__/(.+)\.cpython-\d+\.pyc$", path))
    }
    sources = [path for path in files if path.startswith("/app/serving/") and path.endswith(".py")]
    assert len(sources) > 50
    assert [path for path in sources if path.removesuffix(".py") not in names] == []


def test_the_cpu_image_adds_little_to_its_base(files):
    parts: Counter[str] = Counter()
    for path, size in files.items():
        site = SITE.match(path)
        parts[site[1] if site else "/".join(path.split("/")[:3]) if path.startswith("/app") else ""] += size
    del parts[""]
    added = image_size(IMAGE) - image_size(BASE_IMAGE)
    print(f"\nimage {image_size(IMAGE) / 1e6:.0f} MB, of which {added / 1e6:.0f} MB are not the base's:")
    for name, size in parts.most_common(12):
        print(f"  {name:<28}{size / 1e6:6.1f} MB")
    print(f"  {'the rest':<28}{(sum(parts.values()) - sum(size for _, size in parts.most_common(12))) / 1e6:6.1f} MB")
    assert RUNTIME == "gpu" or SCORING or added <= LARGEST_ADDITION


def test_its_bill_of_materials_names_what_the_lock_pins_and_no_more():
    components = json.loads(Path(BILL).read_text(encoding="utf-8"))["components"]
    listed = {part["name"]: part["version"] for part in components if part.get("purl", "").startswith("pkg:pypi/")}
    locks = [f"serving-{RUNTIME}.txt"] + ["offline.txt"] * SCORING
    pinned = {
        requirement.name: next(iter(requirement.specifier)).version
        for lock in locks
        for requirement in requirements((ROOT / "requirements" / lock).read_text(encoding="utf-8"))
        if requirement.marker is None or requirement.marker.evaluate({"python_version": "3.11"})
    }
    left_out = set((ROOT / "requirements/left-out.in").read_text(encoding="utf-8").splitlines())
    assert listed == {name: version for name, version in pinned.items() if name not in left_out}
    assert "libssl3" in {part["name"] for part in components if part.get("purl", "").startswith("pkg:deb/")}
