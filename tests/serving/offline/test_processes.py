import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import psutil
import pytest

from serving.errors import ServingError
from serving.offline import apart as apart_module
from serving.offline import processes as processes_module
from serving.offline.apart import ENDED
from serving.offline.items import Items
from serving.offline.pictures import Entries, Entry
from serving.offline.processes import PictureProcesses
from tests.e2e.server import wait_until
from tests.serving.offline.conftest import Deadly, make_deadly, png_bytes


def entries(count: int) -> Entries:
    """Return pictures with a bar that moves, and one that is none."""
    images = np.zeros((count, 28, 28), np.uint8)
    for number, image in enumerate(images):
        image[4:24, 10 + number % 8] = 255
    made = [Entry(number, f"{number}.png", "", -1, png_bytes(image)) for number, image in enumerate(images)]
    return Entries((*made, Entry(count, "bad.png", "", -1, b"bad")), 1000)


def children() -> list[psutil.Process]:
    """Return the decoders of this process; what other tests have left unburied is none."""
    living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in living if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[PictureProcesses]:
    """Yield processes that have been started by their first pictures."""
    monkeypatch.setattr(processes_module, "MIN_PICTURES", 1)
    with PictureProcesses(2) as made:
        made.decode(entries(1))
        wait_until(lambda: made._started is not None and made._started.done())
        yield made
    assert children() == []


def same(one: Items, other: Items) -> bool:
    rest = [(items.sources, items.errors, items.reasons, items.blank) for items in (one, other)]
    return np.array_equal(one.images, other.images) and rest[0] == rest[1]


def test_pictures_come_out_of_a_process_as_out_of_a_thread(started: PictureProcesses):
    task = entries(20)
    here, there = task.decode(), started.decode(task)
    assert children()
    assert same(here, there)
    assert list(here.errors) == [20]


def test_few_pictures_and_one_worker_need_no_process():
    with PictureProcesses(2) as two, PictureProcesses(1) as one:
        assert same(two.decode(entries(3)), one.decode(entries(3)))
        one.decode(entries(processes_module.MIN_PICTURES + 1))
        assert children() == []


def test_where_no_process_can_be_started_threads_go_on(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError("no shared memory")

    monkeypatch.setattr(processes_module, "MIN_PICTURES", 1)
    monkeypatch.setattr(processes_module, "ProcessPoolExecutor", fail)
    task = entries(3)
    with PictureProcesses(2) as made:
        assert same(made.decode(task), task.decode())
        assert same(made.decode(task), task.decode())


class DeadlyBytes(bytes):
    """A picture that ends the process it is handed to."""

    def __reduce__(self) -> tuple[Callable[[], NoReturn], tuple[()]]:
        return os.abort, ()


def with_deadly(task: Entries, *positions: int) -> Entries:
    made = list(task.entries)
    for position in positions:
        made[position] = replace(made[position], data=DeadlyBytes(b"deadly"))
    return replace(task, entries=tuple(made))


def test_a_picture_that_ends_its_process_costs_its_own_row_alone(started: PictureProcesses):
    task = entries(8)
    decoded = started.decode(with_deadly(task, 2, 3, 7))
    assert decoded.errors == task.decode().errors | dict.fromkeys((2, 3, 7), ENDED)
    assert decoded.sources == [entry.source for entry in task.entries]
    unharmed = [0, 1, 4, 5, 6]
    assert np.array_equal(decoded.images[unharmed], task.decode().images[unharmed])
    assert not decoded.images[[2, 3, 7]].any()


def test_tasks_beside_one_that_ends_its_process_lose_nothing(started: PictureProcesses):
    task = entries(20)
    deadly = with_deadly(task, 5)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(started.decode, [task, deadly, task, task]))
    for position, items in enumerate(results):
        assert same(items, task.decode()) or position == 1
    assert list(results[1].errors) == [5, 20]


def test_after_processes_were_killed_their_work_is_done_once_more_in_new_ones(started: PictureProcesses):
    killed = children()
    for child in killed:
        child.kill()
    task = entries(3)
    assert same(started.decode(task), task.decode())
    assert same(started.decode(task), task.decode())
    assert set(children()).isdisjoint(killed)
    assert children()


def test_a_run_that_a_picture_ended_goes_on_without_it(models: Path, tmp_path: Path, deadly: Deadly):
    output = tmp_path / "rows.csv"
    command = [*deadly.command(models, output), "--workers", "1"]
    first = subprocess.run(command, env=deadly.environment, capture_output=True)
    assert first.returncode == -signal.SIGABRT
    assert not output.exists()
    resumed = subprocess.run([*command, "--resume"], env=deadly.environment, capture_output=True, text=True)
    assert resumed.returncode == 3, resumed.stderr
    deadly.check(output)


def test_a_picture_whose_decoder_comes_to_no_end_costs_its_own_row_alone(models: Path, tmp_path: Path, digits):
    endless, output = make_deadly(tmp_path, digits[0], "endless"), tmp_path / "rows.csv"
    command = [*endless.command(models, output), "--resume"]
    ended = subprocess.run(command, env=endless.environment, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 3, ended.stderr
    endless.check(output)


def test_processes_that_always_end_stop_the_run(started: PictureProcesses, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apart_module, "_begin", os.abort)
    with pytest.raises(ServingError, match="or cannot be started; --resume goes on from here"):
        started.decode(with_deadly(entries(3), 1))


def test_a_killed_run_leaves_no_process_behind(tmp_path: Path):
    (tmp_path / "run.py").write_text(
        "import time\n"
        "from serving.offline import processes\n"
        "from tests.serving.offline.test_processes import entries\n"
        "if __name__ == '__main__':\n"
        "    processes.MIN_PICTURES = 1\n"
        "    with processes.PictureProcesses(2) as made:\n"
        "        made.decode(entries(1))\n"
        "        made._started.result()\n"
        "        print('started', flush=True)\n"
        "        time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, tmp_path / "run.py"], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        assert process.stdout.readline() == b"started\n"
        decoders = psutil.Process(process.pid).children(recursive=True)
        assert decoders
        process.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs(decoders, timeout=10)[1]
