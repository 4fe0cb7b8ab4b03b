"""The commands that train, measure and fetch, through the real entry point."""

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.conftest import DATA
from training import mnist, recipe
from training.__main__ import main
from training.architectures import build
from training.checkpoint import load, save, written_by_one
from training.precision import has_bfloat16
from training.recipe import find

ROOT = Path(__file__).parent.parent.parent
RUN = "mnist-cnn-seed-seed1"


@pytest.mark.usefixtures("small_data")
def test_training_writes_one_checkpoint_and_says_where(tmp_path: Path, capsys):
    assert main(["train", "mnist-cnn", "--epochs", "2", "--output", str(tmp_path)]) == 0
    path = tmp_path / RUN / "checkpoint.pt"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert load(path).epoch == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("accuracy on test set after epoch 1: ")
    assert lines[-1] == f"checkpoint: {path}"


@pytest.mark.usefixtures("small_data")
def test_a_checkpoint_is_not_trained_over_unasked(tmp_path: Path, capsys):
    command = ["train", "mnist-cnn", "--epochs", "1", "--output", str(tmp_path)]
    assert main(command) == 0
    assert main(command) == 1
    assert "--resume goes on from it, --restart trains anew" in capsys.readouterr().err
    assert main([*command, "--restart"]) == 0


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("option", ["--restart", "--resume"])
def test_a_checkpoint_that_another_training_writes_is_not_trained_into(tmp_path: Path, capsys, option: str):
    command = ["train", "mnist-cnn", "--epochs", "1", "--output", str(tmp_path)]
    assert main(command) == 0
    path = tmp_path / RUN / "checkpoint.pt"
    before = path.read_bytes()
    capsys.readouterr()
    with written_by_one(path):
        assert main([*command, option]) == 1
    assert capsys.readouterr().err.startswith(f"error: another training writes {path}: wait for it")
    assert path.read_bytes() == before
    assert main([*command, option]) == 0


@pytest.mark.usefixtures("small_data")
def test_resuming_gives_what_an_unbroken_run_gives(tmp_path: Path):
    def trained(folder: str, *options: str) -> dict[str, torch.Tensor]:
        assert main(["train", "mnist-cnn", "--output", str(tmp_path / folder), *options]) == 0
        return load(tmp_path / folder / RUN / "checkpoint.pt").state_dict

    whole = trained("whole", "--epochs", "2")
    trained("parts", "--epochs", "1")
    resumed = trained("parts", "--epochs", "2", "--resume")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.usefixtures("small_data")
def test_there_must_be_something_to_resume(tmp_path: Path, capsys):
    assert main(["train", "mnist-cnn", "--resume", "--output", str(tmp_path)]) == 1
    assert "checkpoint.pt cannot be read: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5"])
def test_a_count_that_is_none_is_wrong_usage(count: str, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", "mnist-cnn", f"--epochs={count}"])
    assert f"expected a whole number from 1 on, got {count!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["train", "mnist-cnn", "--seed=-1"], "argument --seed: expected a whole number from 0 on, got '-1'"),
        (["run", "mnist-cnn", "--seed=x"], "argument --seed: expected a whole number from 0 on, got 'x'"),
        (["train-all", "--jobs=0"], "argument --jobs: expected a whole number from 1 on, got '0'"),
        (["train", "mnist-cnn", "--resume", "--restart"], "--restart: not allowed with argument --resume"),
    ],
)
def test_options_that_cannot_be_followed_are_wrong_usage(options: list[str], message: str, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("small_data")
def test_zero_is_a_seed(tmp_path: Path):
    assert main(["train", "mnist-cnn", "--epochs", "1", "--seed", "0", "--output", str(tmp_path)]) == 0
    assert load(tmp_path / "mnist-cnn-seed-seed0" / "checkpoint.pt").seed == 0


@pytest.mark.usefixtures("small_data")
def test_a_place_where_no_checkpoint_can_be_written_is_one_line(tmp_path: Path, capsys):
    (tmp_path / "file").touch()
    assert main(["train", "mnist-cnn", "--output", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'file' / RUN}: Not a directory\n"


@pytest.mark.usefixtures("small_data")
def test_a_checkpoint_that_finds_no_room_is_one_line(tmp_path: Path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        assert main(["train", "mnist-cnn", "--output", str(tmp_path)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().err == "error: File too large\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_data")
def test_any_other_failure_of_a_training_keeps_its_traceback(tmp_path: Path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr("training.fit.save", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        main(["train", "mnist-cnn", "--output", str(tmp_path)])


@pytest.mark.usefixtures("small_data")
def test_a_checkpoint_without_an_optimizer_is_not_resumed(tmp_path: Path, capsys):
    command = ["train", "mnist-cnn", "--epochs", "1", "--output", str(tmp_path)]
    assert main(command) == 0
    path = tmp_path / RUN / "checkpoint.pt"
    save(replace(load(path), optimizer={}), path)
    assert main([*command, "--resume"]) == 1
    assert capsys.readouterr().err == "error: the checkpoint cannot be gone on from, train anew: no 'param_groups'\n"


@pytest.mark.parametrize("threads", ["0", "-1", "1025", "2147483647", "99999999999"])
@pytest.mark.parametrize("command", [["train", "mnist-cnn"], ["compare"]], ids=lambda command: command[0])
def test_a_number_of_threads_that_no_machine_has_is_wrong_usage(command: list[str], threads: str, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--threads", threads])
    assert caught.value.code == 2
    assert f"expected a whole number from 1 to 1024, got '{threads}'" in capsys.readouterr().err


@pytest.mark.parametrize("temperature", ["0", "-1", "nan", "inf"])
def test_a_temperature_that_cannot_be_is_one_line(temperature: str, capsys):
    assert main(["verify", "checkpoint.pt", "model.onnx", "--temperature", temperature]) == 1
    assert capsys.readouterr().err == f"error: --temperature {temperature}: expected a positive number\n"


def test_cuda_is_refused_where_there_is_none(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["train", "mnist-cnn", "--device", "cuda", "--output", str(tmp_path)]) == 1
    assert "--device cuda: torch finds no CUDA device here" in capsys.readouterr().err


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
    ],
)
def test_bfloat16_is_for_processors_with_instructions_for_it(
    monkeypatch, tmp_path: Path, capsys, capabilities: dict[str, bool], precision: str
):
    asking = replace(find("mnist-mlp", "seed"), epochs=1, precision="bfloat16")
    monkeypatch.setattr(recipe, "find", lambda *_: asking)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert main(["train", "mnist-mlp", "--output", str(tmp_path)]) == 0
    assert load(tmp_path / "mnist-mlp-seed-seed1" / "checkpoint.pt").recipe.precision == precision
    said = "cpu: no instructions for bfloat16, training in float32\n"
    assert (said in capsys.readouterr().err) == (precision == "float32")


@pytest.mark.parametrize("real", [True, False])
def test_emulation_is_no_reason_to_take_bfloat16_on_a_gpu(monkeypatch, real: bool):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: real or including_emulation)
    assert has_bfloat16("cuda") == real


def test_an_evil_checkpoint_is_not_resumed(tmp_path: Path, capsys):
    marker = tmp_path / "was-here"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    (tmp_path / RUN).mkdir()
    torch.save({"format": 1, "state_dict": Evil()}, tmp_path / RUN / "checkpoint.pt")
    assert main(["train", "mnist-cnn", "--resume", "--output", str(tmp_path)]) == 1
    assert "neither a tensor nor a plain value" in capsys.readouterr().err
    assert not marker.exists()


# Takes twelve seconds for the rest of an epoch when it has told the first loss.
SLOW = """
import sys, time
from training.__main__ import main
from training.console import Console
usual = Console.on_batch
def slow(self, epoch, batch, batches):
    usual(self, epoch, batch, batches)
    time.sleep(0.02 if batch > 300 else 0)
Console.on_batch = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("real_mnist")
def test_ctrl_c_leaves_a_checkpoint_that_can_be_resumed(tmp_path: Path):
    command = [sys.executable, "-c", SLOW, "train", "mnist-mlp", "--data", str(DATA), "--output", str(tmp_path)]
    # What a shell starts in the background ignores SIGINT, and so would what the tests start there.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    ) as process:
        try:
            assert process.stdout.readline().startswith("[1, 300] loss: ")
            process.send_signal(signal.SIGINT)
            _, complaint = process.communicate(timeout=120)
        finally:
            process.kill()
    path = tmp_path / "mnist-mlp-seed-seed1" / "checkpoint.pt"
    assert process.returncode == 130
    assert complaint == (
        f"interrupted before the first whole epoch; {path} holds the untrained network: the same command with --resume"
        " goes on\n"
    )
    assert load(path).epoch == 0


@pytest.mark.usefixtures("small_data")
def test_weights_are_measured(tmp_path: Path, capsys):
    torch.save(build("mnist-cnn").state_dict(), tmp_path / "weights.pt")
    assert main(["evaluate", str(tmp_path / "weights.pt"), "--architecture", "mnist-cnn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " of 100 right: " in lines[0]
    rows = [list(map(int, line.split())) for line in lines[3:]]
    assert [row[0] for row in rows] == list(range(10))
    assert all(sum(row[1:]) == 10 for row in rows)


@pytest.mark.usefixtures("small_data")
def test_a_checkpoint_is_measured_and_needs_no_architecture(tmp_path: Path, capsys):
    main(["train", "mnist-cnn", "--epochs", "1", "--output", str(tmp_path)])
    accuracy = load(tmp_path / RUN / "checkpoint.pt").history[-1].accuracy
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / RUN / "checkpoint.pt")]) == 0
    assert capsys.readouterr().out.startswith(f"{round(100 * accuracy)} of 100 right: ")


@pytest.mark.usefixtures("small_data")
def test_digits_are_measured_through_the_preprocessing(tmp_path: Path, capsys, monkeypatch):
    torch.save(build("mnist-cnn").state_dict(), tmp_path / "weights.pt")
    line = ["evaluate", str(tmp_path / "weights.pt"), "--architecture", "mnist-cnn", "--through-preprocessing"]
    asked: list[int] = []
    monkeypatch.setattr("training.pictures.sent", lambda images: asked.append(len(images)) or images)
    assert main(line) == 0
    assert asked == [100]
    assert " of 100 right: " in capsys.readouterr().out


def test_fetching_says_what_it_did(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(mnist, "fetch", lambda _: ("one", "two"))
    assert main(["fetch-data", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: fetched one, two; 4 files, verified by SHA-256\n"
    monkeypatch.setattr(mnist, "fetch", lambda _: ())
    main(["fetch-data", "--data", str(tmp_path)])
    assert "nothing to fetch; 4 files" in capsys.readouterr().out


def test_the_help_of_every_command_needs_no_torch():
    code = "import sys; from serving.cli import build_parser as b; b('training', ''); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
