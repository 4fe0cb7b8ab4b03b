import json
import math
from pathlib import Path

import numpy as np
import pytest

from serving.errors import ModelRejected
from serving.manifest import FILE_NAME, Manifest, read_manifest
from tests.serving.tiny_model import tiny_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    manifest = tiny_manifest(b"model")
    manifest.write(tmp_path)
    return manifest


FAILED = {"name": "parity", "figure": "0.5", "bound": "logits within 0.0001", "passed": False}


def change(folder: Path, **fields: object) -> None:
    content = json.loads((folder / FILE_NAME).read_text())
    (folder / FILE_NAME).write_text(json.dumps(content | fields))


def test_what_is_written_is_read_back(manifest: Manifest, tmp_path: Path):
    assert read_manifest(tmp_path) == manifest


def test_a_golden_digit_gives_its_picture_back(manifest: Manifest):
    images = np.stack([digit.image() for digit in manifest.golden])
    np.testing.assert_array_equal(images, np.random.default_rng(1).integers(0, 256, (20, 28, 28), np.uint8))


def test_a_missing_manifest_is_said(tmp_path: Path):
    with pytest.raises(ModelRejected, match=r"no readable manifest.json \(No such file or directory\)"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("schema_version", 2, "schema_version: Input should be 1"),
        ("name", "../other", "name: String should match pattern"),
        ("name", "tiny/other", "name: String should match pattern"),
        ("name", ".tiny", "name: String should match pattern"),
        ("version", 0, "version: Input should be greater than or equal to 1"),
        ("temperature", 0, "temperature: Input should be greater than 0"),
        ("temperature", math.inf, "temperature: Input should be a finite number"),
        ("labels", ["0"], "labels: Value error, expected the digits 0 to 9 in their order"),
        ("labels", [*"9876543210"], "labels: Value error, expected the digits"),
        ("checks", [FAILED], "checks: Value error, expected checks that passed, not parity"),
        ("acceptance", {"min_confidence": 50, "chosen_on": "default"}, "should be less than or equal to 1"),
        ("acceptance", {"min_confidence": -0.5, "chosen_on": "default"}, "should be greater than or equal to 0"),
        ("golden", [], "golden: List should have at least 20 items"),
        ("file", {"name": "m", "sha256": "12", "size_bytes": 1}, r"file\.sha256: String should match pattern"),
        ("surprise", 1, "surprise: Extra inputs are not permitted"),
    ],
)
@pytest.mark.usefixtures("manifest")
def test_a_field_that_does_not_fit_is_named(tmp_path: Path, field: str, value: object, complaint: str):
    change(tmp_path, **{field: value})
    with pytest.raises(ModelRejected, match=complaint):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("digits", [0.2] * 5, r"reference\.digits: List should have at least 10 items"),
        ("ink", [], "reference.ink: List should have at least 1 item"),
        ("ink", [0.5, 0.5], "reference: Value error, expected 3 ascending ink_edges around 2 shares of ink"),
        ("ink_edges", [], "reference: Value error, expected 2 ascending ink_edges"),
        ("ink_edges", [0, 100, 255], "reference: Value error, expected 2 ascending ink_edges"),
        ("ink_edges", [255, 0], "reference: Value error, expected 2 ascending ink_edges"),
        ("ink_edges", [0, math.nan], r"reference\.ink_edges\.1: Input should be a finite number"),
    ],
)
def test_a_reference_that_does_not_fit_itself_is_refused(
    manifest: Manifest, tmp_path: Path, field: str, value: list[float], complaint: str
):
    change(tmp_path, reference=manifest.reference.model_dump() | {field: value})
    with pytest.raises(ModelRejected, match=complaint):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("field", "value"), [("label", 10), ("label", -1), ("logits", [0.0] * 9)])
def test_a_golden_digit_that_is_none_is_refused(manifest: Manifest, tmp_path: Path, field: str, value: object):
    golden = [digit.model_dump() for digit in manifest.golden]
    change(tmp_path, golden=[golden[0] | {field: value}, *golden[1:]])
    with pytest.raises(ModelRejected, match=rf"golden\.0\.{field}: "):
        read_manifest(tmp_path)


@pytest.mark.parametrize("pixels", ["AAAA", "not base64!", ""])
def test_golden_pixels_that_are_no_picture_are_refused(manifest: Manifest, tmp_path: Path, pixels: str):
    golden = [digit.model_dump() for digit in manifest.golden]
    change(tmp_path, golden=[golden[0] | {"pixels": pixels}, *golden[1:]])
    with pytest.raises(ModelRejected, match=r"golden\.0\.pixels: "):
        read_manifest(tmp_path)


def test_a_manifest_that_cannot_be_read_is_said(tmp_path: Path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(ModelRejected, match=r"no readable manifest.json \(Is a directory\)"):
        read_manifest(tmp_path)


def test_text_that_is_no_json_is_refused(tmp_path: Path):
    (tmp_path / FILE_NAME).write_text("{")
    with pytest.raises(ModelRejected, match=r"manifest\.json: Invalid JSON"):
        read_manifest(tmp_path)
