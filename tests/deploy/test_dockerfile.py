"""The Dockerfile is as its linter wants it."""

import subprocess

from tests.deploy.tools import ROOT, program


def test_hadolint_finds_no_fault():
    command = [program("hadolint"), "Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_what_is_copied_from_the_tree_is_made_readable_for_every_user():
    build, image = (ROOT / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[1:]
    assert "COPY serving/ serving/\nCOPY models/ models/\nRUN chmod -R a+rX . " in build
    copies = [line for line in image.splitlines() if line.startswith("COPY ")]
    assert [line for line in copies if not line.startswith("COPY --from=build ")] == []
