import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.offline.sources import STAMP_BYTES, FolderLabels, Inputs, Source, size_of, survey
from tests.serving.offline.conftest import Score, expected_digits, idx_bytes, png_bytes, write_csv
from tests.serving.offline.test_archives import write_zip

LABELS = FolderLabels([str(digit) for digit in range(10)])


def write_tree(root: Path, images, folders: list[str]) -> Path:
    for number, (image, folder) in enumerate(zip(images, folders, strict=True)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"{number:03}.png").write_bytes(png_bytes(image))
    return root


def test_a_folder_gives_a_row_for_each_picture_in_order(score: Score, digits, tmp_path: Path):
    tree = write_tree(tmp_path / "tree", digits[0][:40], ["a"] * 20 + ["b"] * 20)
    scored = score(tree)
    assert scored.code == 0
    assert [row["source"] for row in scored.rows] == [
        str(tree / ("a" if number < 20 else "b") / f"{number:03}.png") for number in range(40)
    ]
    assert scored.digits() == expected_digits(digits[0][:40])
    assert {row["item"] for row in scored.rows} == {""}


@pytest.mark.parametrize(
    "names",
    [
        [str(digit) for digit in range(10)],
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        ["Zero", "One", "TWO", "three", "four", "five", "six", "seven", "eight", "nine"],
    ],
)
def test_g05_a_folder_is_a_label_by_its_name_never_by_its_position(
    score: Score, digits, tmp_path: Path, names: list[str]
):
    images, labels = digits
    tree = write_tree(tmp_path / "tree", images, [names[label] for label in labels])
    (tree / "0_extra_empty").mkdir()
    (tree / ".hidden").mkdir()
    (tree / ".hidden" / "x.png").write_bytes(b"not looked at")
    scored = score(tree)
    assert {Path(row["source"]).name: row["label"] for row in scored.rows} == {
        f"{number:03}.png": int(label) for number, label in enumerate(labels)
    }
    right = np.array(expected_digits(images)) == labels
    assert scored.summary["accuracy"] == pytest.approx(right.mean())
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, expected_digits(images)), 1)
    assert scored.summary["confusion"] == confusion.tolist()


def test_g05_other_folders_and_the_root_give_no_label(score: Score, digits, tmp_path: Path):
    tree = write_tree(tmp_path / "7", digits[0][:3], [".", "eleven", "10"])
    assert {row["label"] for row in score(tree).rows} == {None}
    assert score(tree / "000.png").rows[0]["label"] is None


def test_a_file_whose_name_has_brackets_is_no_glob(score: Score, digits, tmp_path: Path):
    path = tmp_path / "scan [1].png"
    path.write_bytes(png_bytes(digits[0][0]))
    assert score(path).digits() == expected_digits(digits[0][:1])


def test_what_is_not_there_is_an_error_row(score: Score, digits, tmp_path: Path):
    path = tmp_path / "one.png"
    path.write_bytes(png_bytes(digits[0][0]))
    scored = score(tmp_path / "none.png", path, tmp_path / "*.gif")
    assert scored.code == 3
    assert scored.errors() == ["no such file or folder", None, "no file matches"]


def test_kinds_are_mixed_in_one_call_and_keep_their_order(score: Score, digits, tmp_path: Path):
    images, labels = digits
    (tmp_path / "idx").write_bytes(idx_bytes(images[:10]))
    write_csv(tmp_path / "csv", images[10:20], labels[10:20])
    np.savez(tmp_path / "arrays.npz", x=images[20:30])
    tree = write_tree(tmp_path / "tree", images[30:40], ["1"] * 10)
    scored = score(tmp_path / "idx", tmp_path / "csv", tmp_path / "arrays.npz", tree)
    assert scored.digits() == expected_digits(images[:40])


def test_g01_bad_files_are_error_rows_and_nothing_stops(score: Score, digits, tmp_path: Path):
    tree = write_tree(tmp_path / "tree", digits[0], ["."] * 100)
    whole = png_bytes(digits[0][0])
    jpeg = png_bytes(np.kron(255 - digits[0][0], np.ones((8, 8), np.uint8)), "JPEG")
    (tree / "b0-empty.png").touch()
    (tree / "b1-text.png").write_text("hello, world\n")
    (tree / "b2-half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tree / "b3-crc.png").write_bytes(whole[:45] + bytes([whole[45] ^ 1]) + whole[46:])
    (tree / "b4-folder.png").mkdir()
    (tree / "b5-nowhere.png").symlink_to("missing")
    os.mkfifo(tree / "b6-fifo.png")
    Image.new("1", (12_000, 12_000)).save(tree / "b7-large.png")
    (tree / "b8-loop").symlink_to(tree)
    scored = score(tree)
    assert scored.code == 3
    assert scored.digits()[:100] == expected_digits(digits[0])
    bad = {Path(row["source"]).name[:2]: row["error"] for row in scored.rows[100:]}
    assert sorted(bad) == [f"b{number}" for number in range(9)]
    assert all(bad.values())
    assert bad["b0"] == "empty"
    assert bad["b4"] == "an empty folder with the name of a picture"
    assert bad["b5"] == "a link that leads nowhere"
    assert bad["b6"] == "no regular file"
    assert bad["b8"] == "a link to a folder that it lies in"
    assert scored.summary["errors"] == 9
    assert {row["digit"] for row in scored.rows[100:]} == {None}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_g01_files_and_folders_without_permission_are_error_rows(score: Score, digits, tmp_path: Path):
    tree = write_tree(tmp_path / "tree", digits[0][:2], ["a", "b"])
    (tree / "a").chmod(0)
    (tree / "b" / "001.png").chmod(0)
    errors = score(tree).errors()
    (tree / "a").chmod(0o700)
    assert errors == ["permission denied"] * 2


def test_g01_a_file_that_the_system_refuses_is_an_error_row(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "secret.png"
    path.write_bytes(png_bytes(digits[0][0]))
    opened = Path.open

    def refuse(self: Path, *arguments: object, **options: object):
        if self.name == "secret.png":
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert score(path).errors() == ["permission denied"]


def test_g01_a_folder_that_the_system_refuses_is_an_error_row(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tree = write_tree(tmp_path / "tree", digits[0][:2], ["a", "b"])
    listed = Path.iterdir

    def refuse(self: Path):
        if self.name == "a":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    scored = score(tree)
    assert scored.errors() == ["permission denied", None]
    assert scored.rows[0]["source"] == str(tree / "a")


def test_g01_a_name_that_the_system_refuses_is_an_error_row(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    good = write_csv(tmp_path / "rows.csv", digits[0][:1])
    (tmp_path / "loop").symlink_to("loop")
    names = [tmp_path / ("x" * 300), good / "0.png", tmp_path / "loop", tmp_path / "loop" / "0.png", good]
    assert score(*names).errors() == [
        "file name too long",
        "no such file or folder",
        "a link that leads nowhere",
        "too many levels of symbolic links",
        None,
    ]
    monkeypatch.chdir(tmp_path)
    inputs = Inputs(["0\0.png", "**"], LABELS)
    assert [source.error for source in inputs][:1] == ["no such file or folder"]
    assert len(survey(inputs).stamps) == STAMP_BYTES * len(list(inputs))


@pytest.mark.parametrize("argument", ["locked/0.png", "locked/*.png"])
def test_g01_a_place_that_may_not_be_looked_at_is_an_error_row(
    score: Score, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str
):
    good = write_csv(tmp_path / "rows.csv", digits[0][:1])
    looked = Path.stat

    def refuse(self: Path, **options: bool):
        if "locked" in self.parts:
            raise PermissionError(13, "Permission denied")
        return looked(self, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert score(tmp_path / argument, good).errors() == ["permission denied", None]


def test_a_file_that_has_gone_since_it_was_found_has_no_size(tmp_path: Path):
    path = tmp_path / "0.png"
    path.write_bytes(b"12345")
    assert size_of(Source(0, path)) == 5
    path.unlink()
    assert size_of(Source(0, path)) == 0


def test_links_to_folders_are_followed(score: Score, digits, tmp_path: Path):
    tree = write_tree(tmp_path / "tree", digits[0][:2], ["3", "3"])
    (tree / "4").symlink_to(tree / "3")
    assert [row["label"] for row in score(tree).rows] == [3, 3, 4, 4]


def test_what_another_run_keeps_for_its_retry_is_no_input(score: Score, digits, tmp_path: Path):
    tree = write_tree(tmp_path / "tree", digits[0][:3], ["a"] * 3)
    for folder in (tree, tree / "a"):
        assert score(tmp_path / "none.png", output=folder / "other.parquet").code == 3
        (folder / "other.parquet").unlink()
    assert (tree / "other.parquet.partial").is_dir()
    for argument in (tree, tree / "*", tree / "**"):
        assert score(argument).digits() == expected_digits(digits[0][:3])


def test_an_input_is_never_overwritten(score: Score, digits, tmp_path: Path):
    path = write_csv(tmp_path / "rows.csv", *digits)
    before = path.read_bytes()
    scored = score(path, output=path)
    assert scored.code == 1
    assert "is an input" in scored.stderr
    assert path.read_bytes() == before


def test_names_that_are_no_text_are_shown(score: Score, digits, tmp_path: Path):
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png"))
    path.write_bytes(png_bytes(digits[0][0]))
    scored = score(tmp_path / "*.png")
    assert scored.digits() == expected_digits(digits[0][:1])
    assert "\ufffd.png" in scored.rows[0]["source"]


def test_a_survey_tells_changed_files_apart(digits, tmp_path: Path):
    tree = write_tree(tmp_path / "tree", digits[0][:3], ["."] * 3)
    inputs = Inputs([str(tree)], LABELS)
    first = survey(inputs)
    os.utime(tree / "001.png", ns=(1, 1))
    second = survey(inputs)
    stamps = [bytes(first.stamps[at : at + 8]) == bytes(second.stamps[at : at + 8]) for at in (0, 8, 16)]
    assert stamps == [True, False, True]
    assert first.total_bytes == sum(path.stat().st_size for path in tree.iterdir())


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"\x28\xb5\x2f\xfd", "Zstandard data is not read: unpack it first"),
        (b"FEA1", "Feather version 1 is not read: save it as version 2 (Arrow) or Parquet"),
        (b"PARE", "encrypted Parquet is not read: decrypt it first"),
    ],
)
def test_a_kind_that_is_known_and_not_read_is_named(score: Score, tmp_path: Path, head: bytes, error: str):
    (tmp_path / "a").write_bytes(head + bytes(600))
    write_zip(tmp_path / "b", {"c": head + bytes(600)})
    assert score(tmp_path / "a", tmp_path / "b").errors() == [error, error]
