"""What SECURITY.md and RELIABILITY.md promise has a test; no fault is tested that is not told of."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DOCUMENTS = ["SECURITY.md", "RELIABILITY.md"]


def named_in(document: str) -> set[str]:
    return set(re.findall(r"`([\w/]+\.py::test_\w+)`", (ROOT / document).read_text(encoding="utf-8")))


def defined_in(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    found = [node.name for node in nodes if isinstance(node, functions) and node.name.startswith("test_")]
    return {f"{path.relative_to(TESTS).as_posix()}::{name}" for name in found}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_a_promise_names_is_there(document: str):
    named = named_in(document)
    assert len(named) > 20
    files = {name.partition("::")[0] for name in named}
    assert named - set().union(*(defined_in(TESTS / file) for file in files if (TESTS / file).is_file())) == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_row_of_a_promise_names_a_test(document: str):
    text = (ROOT / document).read_text(encoding="utf-8")
    tables = [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    kept = [table for table in tables if re.search(r"Kept by|Test", table[0])]
    assert len(kept) >= 2
    assert [row for table in kept for row in table[2:] if "::test_" not in row] == []


def test_every_fault_that_is_tested_is_told_of():
    tested = set().union(*map(defined_in, TESTS.glob("e2e/test_faults_*.py")))
    assert len(tested) > 20
    assert tested - named_in("RELIABILITY.md") == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_its_links_lead_somewhere_and_its_settings_exist(document: str):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("https:")]
    assert [link for link in links if not (ROOT / link).exists()] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert document in readme
    assert [name for name in set(re.findall(r"`(MNIST_\w+)`", text)) if f"| `{name}` |" not in readme] == []
