import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from training.__main__ import main
from training.distributed import Group, joined
from training.fit import fit
from training.mnist import Mnist
from training.recipe import find

# What each process runs: rank and number of processes come from the environment, as torchrun sets them.
PROGRAM = """
import json, sys, torch
from dataclasses import replace
from training.distributed import joined
from training.fit import fit
from training.mnist import Mnist
from training.recipe import find

data = Mnist(**torch.load(sys.argv[1], weights_only=True))
with joined("cpu") as group:
    state = fit(replace(find("mnist-cnn", "seed"), epochs=2, batch_size=20), data, seed=1, group=group)
    if group.rank == 0:
        print(json.dumps([record.loss for record in state.history]))
"""


def test_two_processes_learn_as_one_does_with_the_doubled_batch(small_mnist: Mnist, tmp_path, free_port: int) -> None:
    file = tmp_path / "data.pt"
    torch.save(vars(small_mnist), file)
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(file)],
            env=os.environ | together | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    alone = fit(replace(find("mnist-cnn", "seed"), epochs=2, batch_size=40), small_mnist, seed=1)
    assert json.loads(outputs[0]) == pytest.approx([record.loss for record in alone.history], rel=1e-4)
    assert alone.history[-1].loss < alone.history[0].loss


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(("rank", "said"), [(0, "checkpoint: {path}\n"), (1, "")])
def test_of_several_processes_the_first_says_where_the_checkpoint_is(
    rank: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.distributed.joined", lambda _: nullcontext(Group(rank, 2)))
    monkeypatch.setattr("training.fit.fit", lambda *_, **__: None)
    assert main(["train", "mnist-cnn", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == said.format(path=tmp_path / "mnist-cnn-seed-seed1" / "checkpoint.pt")


def test_shares_are_equally_large_disjoint_and_nearly_everything() -> None:
    batch = torch.arange(11)
    shares = [Group(rank, 3).share(batch) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert sorted(torch.cat(shares).tolist()) == list(range(9))


def test_a_batch_of_fewer_elements_than_processes_goes_whole_to_each() -> None:
    assert [Group(rank, 3).share(torch.arange(2)).tolist() for rank in range(3)] == [[0, 1]] * 3


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("", "WORLD_SIZE '': expected a number of processes"),
        ("two", "WORLD_SIZE 'two': expected a number of processes"),
        ("0", "WORLD_SIZE '0': expected a number of processes"),
        ("2", "WORLD_SIZE is 2, but there is no RANK, MASTER_ADDR, MASTER_PORT: start the processes by torchrun"),
    ],
)
def test_a_number_of_processes_that_torchrun_did_not_set_is_refused_in_one_line(
    size: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert main(["train", "mnist-cnn", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


def test_alone_nothing_is_wrapped_and_a_mean_is_the_value() -> None:
    model = nn.Linear(1, 1)
    with joined("cpu") as group:
        assert group == Group()
        assert group.wrap(model, "cpu") is model
        assert group.mean(torch.tensor(3.0)) == 3.0
        assert group.share(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]
