import os
from pathlib import Path

import pytest

from serving import processors
from serving.processors import available_threads


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    path = tmp_path / "cgroup"
    path.write_text("0::/\n")
    return path


def write_limit(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def threads(membership: Path, workers: int = 1) -> int:
    return available_threads(workers, membership=membership, root=membership.parent / "fs")


@pytest.mark.parametrize(
    ("limit", "workers", "expected"),
    [
        ("max 100000", 1, 8),
        ("max 100000", 3, 2),
        ("200000 100000", 1, 2),
        ("200000 100000", 2, 1),
        ("350000 100000", 1, 3),
        ("50000 100000", 1, 1),
        ("1600000 100000", 1, 8),
        ("200000 100000", 64, 1),
        ("garbage", 1, 8),
    ],
)
def test_a_quota_of_version_2_bounds_the_threads(membership: Path, limit: str, workers: int, expected: int):
    write_limit(membership.parent / "fs", cpu__max=limit + "\n")
    assert threads(membership, workers) == expected


def test_the_smallest_quota_of_all_levels_counts(membership: Path):
    membership.write_text("0::/kubepods/pod1/container\n")
    write_limit(membership.parent / "fs" / "kubepods" / "pod1", cpu__max="300000 100000")
    write_limit(membership.parent / "fs" / "kubepods" / "pod1" / "container", cpu__max="max 100000")
    write_limit(membership.parent / "fs", cpu__max="600000 100000")
    assert threads(membership) == 3


@pytest.mark.parametrize(("quota", "expected"), [("250000", 2), ("-1", 8), ("", 8)])
def test_a_quota_of_version_1_bounds_the_threads(membership: Path, quota: str, expected: int):
    membership.write_text("7:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n")
    group = membership.parent / "fs" / "cpu,cpuacct" / "docker" / "abc"
    write_limit(group, cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000\n")
    assert threads(membership) == expected


def test_a_container_sees_its_own_group_at_the_mount(membership: Path):
    membership.write_text("4:cpu,cpuacct:/docker/abc\n")
    write_limit(membership.parent / "fs" / "cpu", cpu__cfs_quota_us="400000", cpu__cfs_period_us="100000")
    assert threads(membership) == 4


def test_affinity_alone_counts_without_control_groups(tmp_path: Path):
    assert available_threads(2, membership=tmp_path / "none", root=tmp_path / "none") == 4


def test_a_system_without_affinity_counts_its_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(processors.os, "sched_getaffinity")
    monkeypatch.setattr(processors.os, "cpu_count", lambda: 6)
    assert available_threads(membership=tmp_path / "none", root=tmp_path / "none") == 6
