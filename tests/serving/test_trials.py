import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from serving.errors import ModelRejected
from serving.trials import FORGOTTEN_S, Trials

DIGEST = "0a1b"


def end_within_a_trial(folder: Path, digest: str = DIGEST) -> None:
    """Have a process end while it loads a version."""
    code = (
        "import os, pathlib, sys\n"
        "from serving.trials import Trials\n"
        "with Trials(pathlib.Path(sys.argv[1])).trial(sys.argv[2]):\n"
        "    os._exit(7)\n"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, folder, digest], cwd=root, check=False).returncode == 7


def test_what_ended_a_process_is_loaded_by_no_other(tmp_path: Path):
    end_within_a_trial(tmp_path)
    for _ in range(2):
        with pytest.raises(ModelRejected, match="the end of the process that began it"), Trials(tmp_path).trial(DIGEST):
            pytest.fail("it was loaded")
    with Trials(tmp_path).trial("ffff"):
        pass


def test_after_a_while_one_tries_again(tmp_path: Path):
    end_within_a_trial(tmp_path)
    later = Trials(tmp_path, lambda: time.time() + FORGOTTEN_S)
    with later.trial(DIGEST):
        pass
    with Trials(tmp_path).trial(DIGEST):
        pass


def test_what_failed_a_check_can_be_tried_again_at_once(tmp_path: Path):
    trials = Trials(tmp_path)
    with pytest.raises(ModelRejected, match="size"), trials.trial(DIGEST):
        raise ModelRejected("size", "1", "2")
    with trials.trial(DIGEST):
        pass


def test_one_process_tries_and_the_others_wait_for_it_once(tmp_path: Path):
    trials, entered = Trials(tmp_path), threading.Event()

    def load() -> None:
        with trials.trial(DIGEST):
            entered.set()

    with trials.trial(DIGEST):
        waiting = threading.Thread(target=load)
        waiting.start()
        assert not entered.wait(0.2)
    waiting.join()
    assert entered.is_set()
    with trials.trial(DIGEST):
        entered.clear()
        load()
        assert entered.is_set()


@pytest.mark.parametrize("folder", [None, Path("not") / "there"])
def test_without_a_folder_everything_is_loaded(folder: Path | None):
    with Trials(folder).trial(DIGEST), Trials(folder).trial(DIGEST):
        pass
