from pathlib import Path

import numpy as np
import pytest

import serving.preprocess
from serving.offline.pictures import Entries, Entry
from tests.serving.offline.conftest import png_bytes


def entry(data: bytes | Path, error: str | None = None) -> Entry:
    return Entry(3, "source", "name", 7, data, error)


def test_a_picture_is_prepared_as_the_service_prepares_it(digits):
    items = Entries((entry(png_bytes(digits[0][0])), entry(png_bytes(255 - digits[0][1]))), 10**6).decode()
    assert (items.images == digits[0][:2]).all()
    assert (items.ordinals.tolist(), items.labels.tolist(), items.sources) == ([3, 3], [7, 7], ["source", "source"])
    assert (items.errors, items.reasons, items.blank) == ({}, {}, set())


def test_a_blank_picture_is_blank():
    items = Entries((entry(png_bytes(np.full((300, 300), 255, np.uint8))),), 10**6).decode()
    assert (items.blank, items.reasons) == ({0}, {0: ("blank",)})


def test_a_file_that_has_gone_is_an_error_of_its_item(digits, tmp_path: Path):
    path = tmp_path / "there.png"
    path.write_bytes(png_bytes(digits[0][0]))
    items = Entries((entry(tmp_path / "gone.png"), entry(path), entry(b""), entry(b"", "a link")), 10**6).decode()
    assert items.errors == {0: "no such file or directory", 2: "empty", 3: "a link"}
    assert (items.images[1] == digits[0][0]).all()


def test_a_picture_of_too_many_pixels_is_an_error(digits):
    items = Entries((entry(png_bytes(digits[0][0])),), 783).decode()
    assert "at most 783" in items.errors[0]


def test_a_decoder_that_breaks_costs_one_picture(digits, monkeypatch: pytest.MonkeyPatch):
    original = serving.preprocess.prepare

    def prepare(data: bytes, max_pixels: int):
        if data == b"strange":
            raise ZeroDivisionError
        return original(data, max_pixels)

    monkeypatch.setattr(serving.preprocess, "prepare", prepare)
    items = Entries((entry(b"strange"), entry(png_bytes(digits[0][0]))), 10**6).decode()
    assert items.errors == {0: "the decoder failed: ZeroDivisionError"}
    assert (items.images[1] == digits[0][0]).all()
