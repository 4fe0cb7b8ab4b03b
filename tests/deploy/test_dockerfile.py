"""The Dockerfile is as its linter wants it."""

import subprocess

from tests.deploy.tools import ROOT, program


def test_hadolint_finds_no_fault():
    command = [program("hadolint"), "Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
