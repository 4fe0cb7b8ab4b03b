"""The rules of the house: who may import what, what models/ holds, what the locks honour."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
SERVING = sorted((ROOT / "serving").rglob("*.py"))

# A package and the only place below serving/ that may import it.
OWNERS = {
    "bentoml": "service.py",
    "grpc": "grpc/",
    "grpc_health": "grpc/",
    "grpc_reflection": "grpc/",
    "onnxruntime": "runtime.py",
    "pyarrow": "offline/",
    "ray": "offline/",
}


def imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0]


def test_serving_imports_neither_training_nor_torch():
    guilty = [(path.name, name) for path in SERVING for name in imported_packages(path)]
    assert [pair for pair in guilty if pair[1] in {"training", "torch", "torchvision", "matplotlib"}] == []


@pytest.mark.parametrize("package", OWNERS)
def test_a_package_is_imported_in_its_own_place_only(package: str):
    places = {str(path.relative_to(ROOT / "serving")) for path in SERVING if package in set(imported_packages(path))}
    assert [place for place in places if not place.startswith(OWNERS[package])] == []


def test_running_the_service_loads_no_torch():
    code = "import sys, serving.service; sys.exit(int('torch' in sys.modules or 'training' in sys.modules))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_models_hold_no_code():
    assert [path for path in (ROOT / "models").rglob("*") if path.suffix in {".py", ".pyc", ".pt", ".so", ".sh"}] == []


def calls_outside_functions(node: ast.AST) -> Iterator[ast.Call]:
    """Yield every call that is made when the module is imported, those in decorators among them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in child.decorator_list:
                yield from calls_outside_functions(ast.Expr(decorator))
        elif not isinstance(child, ast.Lambda):
            if isinstance(child, ast.Call):
                yield child
            yield from calls_outside_functions(child)


def test_no_test_is_named_after_the_time():
    """A packed parameter holds the time unless it is told otherwise, and pytest-xdist gives up where names differ."""
    guilty = [
        f"{path.name}:{call.lineno}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for call in calls_outside_functions(ast.parse(path.read_text(encoding="utf-8")))
        if ast.unparse(call.func) == "gzip.compress" and "mtime" not in {keyword.arg for keyword in call.keywords}
    ]
    assert guilty == []


# A pin of a lock and what follows it: the SHA-256 of each of its files.
PIN = re.compile(r"^(\S.*?)((?: \\\n {4}--hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE)


def requirements(text: str) -> Iterator[Requirement]:
    yield from (Requirement(pin[1]) for pin in PIN.finditer(text))


# Releases below these have published advisories that concern this service.
ADVISORY_FLOORS = {
    "bentoml": "1.4.39",
    "onnx": "1.22",
    "onnxruntime": "1.28.3",
    "onnxruntime-gpu": "1.28.3",
    "pillow": "13.0",
    "protobuf": "6.33.5",
    "python-multipart": "0.0.27",
    "starlette": "0.47.2",
    "torch": "2.10",
}


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_locks_pin_every_package_above_its_advisories(lock: Path):
    for requirement in requirements(lock.read_text(encoding="utf-8")):
        pins = [specifier for specifier in requirement.specifier if specifier.operator == "=="]
        assert len(pins) == 1, f"{requirement.name} is not pinned"
        floor = ADVISORY_FLOORS.get(requirement.name)
        assert floor is None or Version(pins[0].version) >= Version(floor), requirement.name


def test_contributing_names_the_pythons_that_ci_looks_for():
    looked_for = re.search(r"for minor in ([\d ]+);", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))[1].split()
    named = " or ".join(f"3.{minor}" for minor in looked_for)
    assert f"in CI with Python {named} where" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_locks_hold_the_hashes_of_every_package(lock: Path):
    pins = PIN.findall(lock.read_text(encoding="utf-8"))
    assert len(pins) > 10
    assert [pin for pin, hashes in pins if not hashes] == []


def test_declared_floors_are_above_the_advisories():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["dependencies"] + [line for lines in project["optional-dependencies"].values() for line in lines]
    for requirement in map(Requirement, declared):
        floor = ADVISORY_FLOORS.get(requirement.name)
        floors = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
        assert floor is None or (floors and floors[0] >= Version(floor)), requirement.name


@pytest.mark.parametrize("runtime", ["cpu", "gpu"])
def test_a_serving_lock_holds_one_onnxruntime_and_no_torch(runtime: str):
    text = (ROOT / "requirements" / f"serving-{runtime}.txt").read_text(encoding="utf-8")
    names = {requirement.name for requirement in requirements(text)}
    assert {name for name in names if name.startswith("onnxruntime")} == {
        "onnxruntime" if runtime == "cpu" else "onnxruntime-gpu"
    }
    assert not names & {"torch", "torchvision", "ray", "matplotlib", "pytest"}


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    # Under another make, as `make test` is, make would print the folder it enters.
    make_help = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(make_help, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == phony


def test_make_refuses_an_unknown_runtime():
    made = subprocess.run(["make", "-n", "serve", "RUNTIME=tpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "RUNTIME=tpu: expected cpu or gpu" in made.stderr


def test_case_h08_what_is_built_into_an_image_has_no_link_and_no_command_from_a_setting():
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("only a checkout knows what belongs to it")
    assert [line for line in listed.stdout.splitlines() if line.startswith("120000")] == []
    bentofile = (ROOT / "bentofile.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"^(\w+):", bentofile, re.M)) == {
        *("service", "name", "description", "include", "exclude", "python", "envs")
    }
    assert ".." not in bentofile
