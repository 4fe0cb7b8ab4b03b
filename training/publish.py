"""Publication: a checkpoint becomes `models/NAME/VERSION/` by one rename and is listed by the next, or nothing happens.

Must not know: what the checks are, or what a manifest holds.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from serving import repository
from serving.manifest import INPUTS, LAYERS_FILE_NAME, MODEL_FILE_NAME, OUTPUTS, Acceptance, Check, Manifest, TensorSpec
from serving.runtime import OnnxModel
from training.checkpoint import Checkpoint
from training.checksums import FILE_NAME as LIST_FILE_NAME
from training.checksums import draft_checksums, is_complete, write_checksums
from training.errors import CheckpointRejected
from training.export import export
from training.figures import complete, digits_of_the_test, score
from training.layered import check_layers, export_layers
from training.mnist import Mnist
from training.record import DEFAULT_ACCEPTANCE, Files, make_manifest
from training.report import write_report
from training.verify import Digits, require, verify

# The layers file holds the weights that `verify` measured on every test digit; here two files are compared.
LAYERS_CHECK_IMAGES = 1000

STAGING_PREFIX = ".staging-"
CONFIG_FILE_NAME = "config.pbtxt"

# Whoever serves the models may run as another user than the one who published them.
FOLDER_MODE, FILE_MODE = 0o755, 0o644

# The first dimension of every tensor is the batch, and rows do not depend on each other, so Triton may join requests;
# it then wants the shapes without the batch. Measured, mnist-cnn on one thread: 44 us per image in a batch of 1, 33 of
# 16, 29 of 256, 50 of 1,024.
TRITON_MAX_BATCH_SIZE = 256
TRITON_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def publish(
    checkpoint: Checkpoint,
    data: Mnist,
    models: Path,
    report: Callable[[list[Check]], object],
    *,
    temperature: float = 1.0,
    acceptance: Acceptance = DEFAULT_ACCEPTANCE,
    siblings: Sequence[Checkpoint] = (),
    once: bool = False,
) -> Path:
    """Export, check and publish a checkpoint as the next free version of its architecture.

    Publishers wait for each other. One that is killed leaves a hidden folder, which the next one removes.

    Args:
        checkpoint: what to publish.
        data: MNIST.
        models: the model repository; made if missing.
        report: gets the checks, whether or not they passed.
        temperature: see `training.export`.
        acceptance: when a prediction counts as known.
        siblings: finished runs of the same recipe at other seeds, measured beside this one.
        once: whether to publish nothing if a version has these weights already.

    Returns:
        The folder of the version that has these weights.

    Raises:
        CheckpointRejected: the run has not come to its last epoch.
        VerificationFailed: a check failed; nothing was published.
        ExportFailed: see `training.export`.
        ModelRejected: the finished version does not load; nothing was published.
    """
    if checkpoint.epoch < checkpoint.recipe.epochs:
        raise CheckpointRejected(
            f"the checkpoint has {checkpoint.epoch} of {checkpoint.recipe.epochs} epochs behind it:"
            " the same `train` command with --resume goes on"
        )
    with _staging(models, checkpoint.architecture) as staging:
        model = checkpoint.model()
        file = staging / MODEL_FILE_NAME
        export(model, file, temperature)
        if once and (there := _version_of(file.read_bytes(), models / checkpoint.architecture)):
            return there
        digits = Digits(data.test_images.numpy(), data.test_labels.numpy())
        floor = checkpoint.recipe.min_accuracy
        checks = verify(file, model, digits, temperature=temperature, min_accuracy=floor)
        export_layers(model, staging / LAYERS_FILE_NAME)
        checks.append(
            check_layers(staging / LAYERS_FILE_NAME, OnnxModel(file, "cpu"), digits.images[:LAYERS_CHECK_IMAGES])
        )
        report(checks)
        require(checks)

        family = models / checkpoint.architecture
        version = _next_version(family)
        # The staged folder has the version's name and its parent's, which the load compares with the manifest.
        staged = staging / checkpoint.architecture / str(version)
        staged.mkdir(parents=True)
        file = file.rename(staged / MODEL_FILE_NAME)
        layers = (staging / LAYERS_FILE_NAME).rename(staged / LAYERS_FILE_NAME)
        manifest = make_manifest(
            checkpoint, version, Files(file, layers), checks, data, temperature=temperature, acceptance=acceptance
        )
        _describe(staged, manifest, checkpoint, data, siblings)
        _make_readable(staged)
        repository.load(staged, "cpu")
        return _put_in_place(staged, _write_config(staging, family.name), family)


def find_published(checkpoint: Checkpoint, models: Path, temperature: float = 1.0) -> Path | None:
    """Return the latest version whose file is the one that a checkpoint would be published with, or None.

    Makes up for a publisher that was killed before it listed its version.

    Args:
        checkpoint: what would be published; equal weights give equal files.
        models: the model repository.
        temperature: see `training.export`.
    """
    if not repository.Repository(models).versions(checkpoint.architecture):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / MODEL_FILE_NAME
        export(checkpoint.model(), file, temperature)
        with _lock(models):
            return _version_of(file.read_bytes(), models / checkpoint.architecture)


def _version_of(content: bytes, family: Path) -> Path | None:
    """Return the latest version whose file has this content, and see that it is listed; under the lock."""
    models = family.parent
    for version in reversed(repository.Repository(models).versions(family.name)):
        published = family / str(version) / MODEL_FILE_NAME
        if published.is_file() and published.read_bytes() == content:
            if not is_complete(models):
                _list_anew(family)
            return published.parent
    return None


def _list_anew(family: Path) -> None:
    """List what a killed publisher has not; its configuration may have come in place of one that is listed."""
    config = family / CONFIG_FILE_NAME
    is_ours = config.is_file() and config.read_text(encoding="utf-8", errors="replace") == triton_config(family.name)
    write_checksums(family.parent, FILE_MODE, {config: config} if is_ours else {})


def _describe(
    staged: Path, manifest: Manifest, checkpoint: Checkpoint, data: Mnist, siblings: Sequence[Checkpoint]
) -> None:
    """Write manifest, report and model card of the file in the staged folder."""
    runtime = OnnxModel(staged / MODEL_FILE_NAME, "cpu")
    test = score(runtime, digits_of_the_test(data))
    complete_manifest = complete(manifest, checkpoint, runtime, test, data, siblings)
    complete_manifest.write(staged)
    write_report(staged, complete_manifest, checkpoint, test)


@contextmanager
def _staging(models: Path, name: str) -> Iterator[Path]:
    """Give an empty hidden folder inside `models/NAME`, this process alone; leave nothing of it behind."""
    if not models.exists():
        models.mkdir(parents=True, exist_ok=True)
        models.chmod(FOLDER_MODE)
    family = models / name
    with _lock(models):
        if not family.exists():
            family.mkdir()
            family.chmod(FOLDER_MODE)
        for left_over in family.glob(f"{STAGING_PREFIX}*"):
            shutil.rmtree(left_over)
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=family))
        try:
            yield staging
        finally:
            shutil.rmtree(staging)
            with suppress(OSError):  # it holds versions
                family.rmdir()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Wait until no other process holds this folder; the system lets go of it for a process that dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _next_version(family: Path) -> int:
    """Return the number behind the largest in use, whatever bears it."""
    return 1 + max((int(entry.name) for entry in family.iterdir() if entry.name.isdecimal()), default=0)


def _make_readable(folder: Path) -> None:
    """Give the folder and its files the modes of published ones, their content on disk."""
    folder.chmod(FOLDER_MODE)
    for path in folder.iterdir():
        path.chmod(FILE_MODE)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_config(staging: Path, name: str) -> Path:
    config = staging / CONFIG_FILE_NAME
    config.write_text(triton_config(name), encoding="utf-8")
    config.chmod(FILE_MODE)
    return config


def _put_in_place(staged: Path, new_config: Path, family: Path) -> Path:
    """Rename configuration, version and list to where they belong; if one cannot be, take the others back.

    A publisher that is killed before the last rename leaves a version that is not listed; whoever publishes next lists
    it.
    """
    models, published, config = family.parent, family / staged.name, family / CONFIG_FILE_NAME
    old_config = new_config.with_suffix(".old")
    if config.exists():
        shutil.copy2(config, old_config)
    arriving = {published / path.name: path for path in staged.iterdir()} | {config: new_config}
    draft = draft_checksums(models, FILE_MODE, arriving)
    try:
        new_config.replace(config)
        staged.rename(published)
        draft.replace(models / LIST_FILE_NAME)
    except OSError:
        if not staged.exists():
            published.rename(staged)
        if old_config.exists():
            old_config.replace(config)
        else:
            config.unlink(missing_ok=True)
        draft.unlink()
        raise
    return published


def triton_config(name: str) -> str:
    """Return the `config.pbtxt` with which NVIDIA Triton serves every version of a model.

    Source: Triton Inference Server, "Model Configuration", of it "Version Policy".
    """
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {TRITON_MAX_BATCH_SIZE}",
        "version_policy: { all {} }",  # without it, the latest alone
        *(_triton_tensor("input", spec) for spec in INPUTS),
        *(_triton_tensor("output", spec) for spec in OUTPUTS),
        "dynamic_batching {}",
    ]
    return "\n".join(lines) + "\n"


def _triton_tensor(side: str, spec: TensorSpec) -> str:
    dims = ", ".join(map(str, spec.shape[1:]))
    return f'{side} {{ name: "{spec.name}" data_type: {TRITON_TYPES[spec.dtype]} dims: [ {dims} ] }}'
