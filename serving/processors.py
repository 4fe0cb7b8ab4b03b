"""How many processors this process may really use: CPU affinity and the quota of its control groups.

Must not know: what the threads are for.
"""

import os
from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _quota_v2(folder: Path) -> float | None:
    limit = _read(folder / "cpu.max")
    if len(limit) != 2 or limit[0] == "max":
        return None
    return int(limit[0]) / int(limit[1])


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if not quota or not period or int(quota[0]) <= 0:
        return None
    return int(quota[0]) / int(period[0])


def _quotas(membership: Path, root: Path) -> Iterator[float | None]:
    """Yield the quota of every control group above this process; a limit may sit at any level."""
    lines = membership.read_text(encoding="utf-8").splitlines() if membership.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts, read_quota = {root, root / "unified"}, _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read_quota = {root / "cpu", root / controllers}, _quota_v1
        else:
            continue
        for mount in mounts:
            group = mount / path.lstrip("/")
            yield from (read_quota(folder) for folder in (group, *group.parents) if folder.is_relative_to(mount))


def available_threads(workers: int = 1, *, membership: Path = MEMBERSHIP, root: Path = CGROUP_ROOT) -> int:
    """Return the number of threads that one of `workers` equal processes may keep busy, >= 1.

    Args:
        workers: processes that share this machine's or container's processors, >= 1.
        membership: `/proc/self/cgroup`; each line is `hierarchy:controllers:path`.
        root: where the control groups are mounted.
    Source: Linux's documentation, cgroup-v2 (`cpu.max`) and sched-bwc (`cpu.cfs_quota_us`).
    """
    quotas = [quota for quota in _quotas(membership, root) if quota is not None]
    return max(1, int(min([_affinity(), *quotas]) // workers))
