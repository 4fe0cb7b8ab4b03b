import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.offline.items import Task
from serving.offline.plan import Plan, ReadOptions
from serving.offline.sources import FolderLabels, Inputs, Position, survey
from tests.serving.offline.conftest import csv_lines, idx_bytes, png_bytes, table_of, write_csv
from tests.serving.offline.test_archives import write_tar, write_zip

LABELS = FolderLabels([str(digit) for digit in range(10)])


def write(kind: str, images, path: Path) -> None:
    pictures = {f"{number}.png": png_bytes(image) for number, image in enumerate(images)}
    if kind == "idx":
        path.write_bytes(idx_bytes(images))
    elif kind == "idx.gz":
        path.write_bytes(gzip.compress(idx_bytes(images)))
    elif kind == "csv":
        write_csv(path, images)
    elif kind in {"parquet", "pictures"}:
        table = pa.table({"image": list(pictures.values())}) if kind == "pictures" else table_of(images)
        pq.write_table(table, path)
    elif kind == "zip":
        write_zip(path, pictures)
    elif kind == "tar":
        write_tar(path, pictures)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, x=images)
    elif kind == "tree":
        path.mkdir()
        for name, data in pictures.items():
            (path / name).write_bytes(data)
    else:
        new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with new(path, table_of(images).schema) as writer:
            writer.write_table(table_of(images), max_chunksize=500)


KINDS = ["idx", "idx.gz", "csv", "parquet", "pictures", "arrow", "stream", "zip", "tar", "npz", "tree"]


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_grow_from_task_to_task_to_the_size_of_the_input(test_digits, tmp_path: Path, kind: str):
    write(
        kind,
        test_digits[0][:3000] if kind not in {"pictures", "zip", "tar", "tree"} else test_digits[0][:200],
        tmp_path / "in",
    )
    inputs = Inputs([str(tmp_path / "in")], LABELS)
    plan = Plan(inputs, ReadOptions("auto", 50_000_000, LABELS))
    seen = [plan.bytes_done]
    seen += [plan.bytes_done for _ in plan]
    total = survey(inputs).total_bytes
    assert plan.bytes_done == total
    assert seen == sorted(seen)
    # What fits the first buffer of a stream is read at once.
    assert 0 < seen[1] < total or (seen[1] == total and kind in {"idx.gz", "tar"})
    assert len(seen) > 3


@pytest.mark.parametrize("kind", ["csv", "zip"])
def test_files_that_cannot_be_read_count_as_read_when_their_batch_is_full(tmp_path: Path, kind: str):
    for number in range(70):
        path = tmp_path / str(number)
        path.write_text("a,b\n1,2\n")
        if kind == "zip":
            write_zip(path, {"0.npy": b"", "1.npy": b""})
            path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x03", 1))
    inputs = Inputs([str(tmp_path)], LABELS)
    plan = Plan(inputs, ReadOptions("auto", 1000, LABELS))
    seen = [plan.bytes_done for _ in plan]
    assert [round(70 * done / survey(inputs).total_bytes) for done in seen] == [32, 64, 70]


def test_a_task_finds_its_pictures_from_any_folder(digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write("tree", digits[0][:2], tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    (task,) = Plan(Inputs(["in"], LABELS), ReadOptions("auto", 1000, LABELS))
    monkeypatch.chdir("/")
    items = task.decode()
    assert (items.errors, items.sources) == ({}, ["in/0.png", "in/1.png"])
    assert (items.images == digits[0][:2]).all()


def rows_of(tasks: Iterable[Task]) -> list[tuple[int, str]]:
    return [
        (int(ordinal), name)
        for items in (task.decode() for task in tasks)
        for ordinal, name in zip(items.ordinals, items.names, strict=True)
    ]


def test_a_plan_goes_on_behind_any_of_its_tasks(digits, tmp_path: Path):
    images = digits[0]
    write("tree", images[:40], tmp_path / "0")
    write("zip", images[:50], tmp_path / "1")
    write_zip(tmp_path / "2", {"a.csv": "\n".join(csv_lines(images[:9])).encode(), "b.png": b"", "c.png": b""})
    (tmp_path / "3").write_bytes(b"no input")
    write("npz", images[:5], tmp_path / "4")
    write("pictures", images, tmp_path / "5")
    write("tree", images[:3], tmp_path / "6")
    inputs = Inputs([str(tmp_path / str(number)) for number in range(7)], LABELS)
    options = ReadOptions("auto", 50_000_000, LABELS)
    plan, before, seen = Plan(inputs, options), list[tuple[int, str]](), list[Position]()
    whole = rows_of(Plan(inputs, options))
    for task in plan:
        before += rows_of([task])
        seen.append(plan.position)
        assert before + rows_of(Plan(inputs, options, plan.position)) == whole
    assert before == whole
    assert seen == sorted(seen)
    assert len(seen) > 6


def test_what_ends_a_source_is_told_even_where_less_of_it_can_be_read(digits, tmp_path: Path):
    write("npz", digits[0][:5], tmp_path / "in")
    inputs, options = Inputs([str(tmp_path / "in")], LABELS), ReadOptions("auto", 1000, LABELS)
    (tmp_path / "in").write_bytes(b"")
    plan = Plan(inputs, options, Position(0, 1))
    (task,) = plan
    assert task.decode().errors == {0: "empty"}
    assert plan.position == Position(1)


@pytest.mark.parametrize(("kind", "sizes"), [("zip", [2, 2, 2, 1]), ("pictures", [2, 2, 2, 1]), ("tree", [7])])
def test_of_pictures_that_wait_in_memory_fewer_are_one_task(digits, tmp_path: Path, monkeypatch, kind: str, sizes):
    write(kind, digits[0][:1].repeat(7, axis=0), tmp_path / "in")
    monkeypatch.setattr("serving.offline.plan.WAITING_BYTES", 2 * len(png_bytes(digits[0][0])))
    plan = Plan(Inputs([str(tmp_path / "in")], LABELS), ReadOptions("auto", 1000, LABELS))
    assert [len(task.entries) for task in plan] == sizes
