"""What the README says is what the program does."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
from prometheus_client import CollectorRegistry

from serving.cli import build_parser
from serving.manifest import read_manifest
from serving.metrics import Metrics
from serving.preprocess import prepare
from serving.repository import Repository
from serving.runtime import open_on_cpu
from training.checksums import FILE_NAME, is_complete, write_checksums

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def output(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_the_table_of_settings_is_the_programs():
    assert output("serving", "settings", "--format", "markdown") in README


def test_the_table_of_metrics_names_each_with_its_text():
    listed = dict(re.findall(r"^\| `(mnist_\w+)` \| (.+) \|$", README, re.MULTILINE))
    families = Metrics(CollectorRegistry()).registry.collect()
    assert listed == {
        family.name + ("_total" if family.type == "counter" else ""): family.documentation for family in families
    }


def test_the_score_commands_are_those_of_its_help():
    calls = re.findall(r"python (-m serving score .+)", README)
    assert len(calls) == 3
    text = output("serving", "score", "--help")
    assert [call for call in calls if call not in text] == []


def test_every_make_target_that_it_names_exists():
    targets = set(
        re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    )
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_its_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not re.match("https?:", link)]
    files = [link for link in links if not link.startswith("#")]
    assert [link for link in files if not (ROOT / link).exists()] == []
    headings = {
        re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.+)$", README, re.M)
    }
    assert [link for link in links if link.startswith("#") and link[1:] not in headings] == []


def test_cuda_and_cudnn_are_those_of_the_lock():
    lock = (ROOT / "requirements" / "serving-gpu.txt").read_text(encoding="utf-8")
    pinned = {
        name: re.search(rf"^nvidia-{name}==(\d+\.\d+)\.", lock, re.M)[1] for name in ("cuda-runtime", "cudnn-cu13")
    }
    assert f"CUDA {pinned['cuda-runtime']} and cuDNN {pinned['cudnn-cu13']}," in README


def test_the_runs_of_its_first_table_are_those_of_the_committed_models():
    rows = re.findall(r"\| ([\d.]+ %) \| `\.venv/bin/python -m training (run [^`]+)` \|", README)
    assert len(rows) == 4
    versions = {
        (name, recipe): version for name, version, recipe in re.findall(r"^\| (\S+) (\d+) \| (\w+) ", README, re.M)
    }
    parser = build_parser("training", "")
    for accuracy, command in rows:
        asked = parser.parse_args(command.split())
        manifest = read_manifest(ROOT / "models" / asked.architecture / versions[asked.architecture, asked.recipe])
        assert (asked.recipe, asked.seed) == (manifest.training.recipe, manifest.training.seed), command
        (test,) = (record for record in manifest.accuracy if record.split == "test")
        assert accuracy == f"{test.accuracy:.2%}".replace("%", " %")


def test_no_placeholder_is_left():
    assert re.findall(r"@@\w+@@", README) == []


def commands(prefix: str) -> list[str]:
    return [line for line in re.findall(r"^    (?:\$ )?(.+)$", README, re.MULTILINE) if line.startswith(prefix)]


def test_the_answer_on_the_first_screen_has_the_form_that_is_served():
    answer = orjson.loads(re.search(r"^    (\{\"model\".+)$", README, re.MULTILINE)[1])
    assert answer["predictions"][0]["digit"] == 7
    assert set(answer["predictions"][0]) == {"digit", "confidence", "probabilities", "accepted", "reasons", "source"}


def test_the_figures_on_the_first_screen_are_those_of_the_committed_model():
    answer = orjson.loads(re.search(r"^    (\{\"model\".+)$", README, re.MULTILINE)[1])
    model, (shown,) = answer["model"], answer["predictions"]
    picture = prepare((ROOT / "docs" / "seven.png").read_bytes())
    graph = ROOT / "models" / model["name"] / model["version"] / "model.onnx"
    (probabilities,) = open_on_cpu(graph.read_bytes(), 1).run(["probabilities"], {"images": picture.image[np.newaxis]})
    # Another kind of processor rounds otherwise; another picture differs by more.
    assert shown["probabilities"] == pytest.approx(probabilities[0].tolist(), rel=0.01)
    assert shown["confidence"] == max(shown["probabilities"])


def test_a_version_is_taken_back_from_the_list_too(tmp_path: Path):
    for folder in ("1", "3", "30"):
        (tmp_path / "models" / "mnist-cnn" / folder).mkdir(parents=True)
        (tmp_path / "models" / "mnist-cnn" / folder / "model.onnx").touch()
    write_checksums(tmp_path / "models", 0o644)
    (command,) = commands("rm -r models/")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, timeout=120)
    subprocess.run(["sha256sum", "--strict", "-c", FILE_NAME], cwd=tmp_path / "models", check=True, timeout=120)
    assert is_complete(tmp_path / "models")
    assert Repository(tmp_path / "models").versions("mnist-cnn") == [1, 30]


@pytest.mark.parametrize("call", commands(".venv/bin/python -m training shapes"))
def test_the_shapes_commands_run(call: str):
    pytest.importorskip("torch")
    import shlex

    words = shlex.split(call, comments=True)[1:]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
