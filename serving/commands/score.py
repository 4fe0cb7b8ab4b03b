"""`python -m serving score`: digits of files, one row out for every item in."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from serving.options import whole_from

if TYPE_CHECKING:
    from serving.offline.job import Engine, Job, Result
    from serving.offline.limits import ErrorLimit
    from serving.repository import LoadedModel
    from serving.runtime import Device
    from serving.settings import Settings

HELP = """\
INPUT is a file, a folder, a glob in quotes, or - for a list of paths on standard input, one a line. What a file is,
its content says, not its name; kinds may be mixed:
  IDX, NPY, NPZ          numbers of shape (N, 28, 28), (N, 784), (N, 1, 28, 28) or (N, 28, 28, 1); labels from MNIST's
                         file beside an IDX file, or from the array y beside x in an NPZ file
  CSV, Parquet, Arrow    784 columns pixel0 to pixel783 (or 1 to 784, or 1x1 to 28x28) in any order, perhaps a column
                         label; CSV also without a header, then the label first; Parquet and Arrow also one column of
                         lists of pixels, or of encoded pictures
  PNG, JPEG, TIFF, ...   any picture of a digit
  zip, tar               of pictures, IDX, NPY and CSV; gzip, bzip2 and xz around them and around IDX, NPY and CSV
Folders are searched, but for hidden files and what other runs keep; a folder named 0 to 9 or zero to nine labels the
pictures in it.
Numbers are 0 = paper to 255 = ink; an image whose first and last lines are mostly ink is taken for a negative, and
turned. Floats that lie between 0 and 1 are taken as 0 to 1; nothing but zeros and ones is refused unless --scale says
what 1 means.

Columns of the output: row, source, item (its number, line or name in the source), digit, confidence, accepted (whether
the model's threshold is reached and nothing speaks against it), reasons, label, error; with --probabilities p0 to p9.
An item that cannot be read is a row with an error. FILE appears when it is complete; until then, and after a run with
errors, FILE.partial holds what --resume and --retry-failed need.

exit codes: 0 all scored, 1 stopped, 2 wrong usage, 3 finished with errors, 130 interrupted

examples:
  python -m serving score test.csv --format kaggle --output submission.csv
  python -m serving score scans/ --output digits.parquet --summary summary.json
  python -m serving score images.npz 'more/*.png' --output digits.csv --resume
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "score",
        help="read the digits of files into Parquet, CSV or JSON Lines",
        description="Read the digits of files: one row out for every item in, in order, nothing lost.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, folder, glob, or -; see below")
    _add_output(parser)
    _add_model(parser)
    _add_errors(parser)
    parser.set_defaults(run=run)


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="where the rows go")
    formats = ["parquet", "csv", "jsonl", "kaggle"]
    group.add_argument("--format", choices=formats, help="by default what FILE ends in, else parquet")
    group.add_argument("--probabilities", action="store_true", help="add columns p0 to p9")
    group.add_argument(
        "--fallback-label",
        type=int,
        choices=range(10),
        metavar="DIGIT",
        help="kaggle: label of items without a digit",
    )
    group.add_argument("--summary", type=Path, metavar="FILE", help="write counts, accuracy and speed as JSON")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary on the terminal")


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model and input (by default as the service's settings say)")
    group.add_argument("--models", type=Path, metavar="FOLDER", help="the model repository")
    group.add_argument("--model", metavar="NAME[/VERSION]", help="the model, its latest version by default")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], help="where the model runs")
    group.add_argument("--workers", type=whole_from(1), metavar="N", help="threads, by default one for each processor")
    group.add_argument("--engine", choices=["local", "ray"], default="local", help="threads here, or a Ray cluster")
    group.add_argument("--ray-address", metavar="HOST:PORT", help="the running cluster, by default one started here")
    group.add_argument("--scale", choices=["auto", "1", "255"], default="auto", help="the value of full ink in numbers")
    group.add_argument("--max-pixels", type=whole_from(1), metavar="N", help="largest picture that is read")


def _add_errors(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("errors and interrupted runs")
    limits = group.add_mutually_exclusive_group()
    limits.add_argument("--fail-fast", action="store_true", help="stop at the first error")
    limits.add_argument("--max-errors", metavar="N|P%", help="stop at more than N errors, or P percent of the rows")
    group.add_argument("--resume", action="store_true", help="go on with an unfinished run of the same command")
    group.add_argument("--retry-failed", action="store_true", help="go on, and score again the files that had errors")


def run(arguments: argparse.Namespace) -> int:
    """Score the inputs; return 0 if all were scored, 3 if some were errors."""
    import os
    import signal

    # As Ctrl-C. The first process of a container, as of a job, never gets a signal for which it has no handler.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from serving.memory import keep_free
    from serving.offline.job import run_job
    from serving.settings import read_settings

    keep_free()
    _check_places(arguments)
    settings = read_settings(os.environ)
    workers = arguments.workers or _processors()
    model = _load(arguments, settings)
    result = run_job(
        _job(arguments, settings, model),
        _engine(arguments, model, arguments.device or settings.device, workers),
        None if arguments.quiet else sys.stderr,
    )
    _report(arguments, model, result)
    return 3 if result.summary.errors else 0


def _check_places(arguments: argparse.Namespace) -> None:
    from serving.errors import ConfigurationError
    from serving.offline.job import own_places
    from serving.offline.sources import place_of, real

    summary: Path | None = arguments.summary
    for option, place in (("--output", arguments.output), ("--summary", summary)):
        if str(place) == "-":
            raise ConfigurationError(f"{option} -: standard output is not written, name a file")
    if summary is None:
        return
    if not summary.absolute().parent.is_dir() or summary.is_dir():
        raise ConfigurationError(f"--summary {summary}: expected a file in a folder that exists")
    if real(summary) == real(arguments.output):
        raise ConfigurationError(f"--summary {summary}: that is the output")
    if place_of(summary) in own_places(arguments.output):
        raise ConfigurationError(f"--summary {summary}: that is where the run keeps its rows")


def _processors() -> int:
    from serving.processors import available_threads

    return available_threads()


def _load(arguments: argparse.Namespace, settings: "Settings") -> "LoadedModel":
    from serving.errors import ConfigurationError, ModelNotFound
    from serving.repository import Repository, load

    name, _, version = (arguments.model or settings.default_model).partition("/")
    if version and not version.isdecimal():
        raise ModelNotFound(f"no version {version!r} of {name}: a version is a whole number")
    models: Path = arguments.models or settings.models
    if not models.is_dir():
        raise ConfigurationError(f"no models: {models} is no folder")
    folder = Repository(models).folder(name, int(version) if version else None)
    # Each worker runs the model in its own thread: no work is handed over, and none waits for another.
    return load(folder, arguments.device or settings.device, threads=1)


def _engine(arguments: argparse.Namespace, model: "LoadedModel", device: "Device", workers: int) -> "Engine":
    from functools import partial

    from serving.errors import ConfigurationError
    from serving.offline.engine import score_locally
    from serving.offline.rows import Scorer

    if arguments.engine == "ray":
        from serving.offline.shards import Weights, score_on_ray

        return partial(score_on_ray, weights=Weights.of(model, device), address=arguments.ray_address, workers=workers)
    if arguments.ray_address:
        raise ConfigurationError("--ray-address is for --engine ray")
    score = Scorer(model.runtime.run, model.manifest.acceptance).score
    return partial(score_locally, score=score, workers=workers, careful=arguments.resume or arguments.retry_failed)


def _job(arguments: argparse.Namespace, settings: "Settings", model: "LoadedModel") -> "Job":
    from serving.errors import ConfigurationError
    from serving.offline.job import Job, is_same, own_places
    from serving.offline.plan import ReadOptions
    from serving.offline.sources import FolderLabels, Inputs
    from serving.offline.writers import SUFFIXES, Form

    labels = FolderLabels(model.manifest.labels)
    listed = list(_listed(arguments.inputs))
    if not listed:
        raise ConfigurationError("no input: standard input lists no paths")
    if "" in listed:  # a variable that is not set; as a path it would be the current folder
        raise ConfigurationError("an input without a name: expected a file, a folder or a glob")
    if arguments.summary and any(is_same(arguments.summary, argument) for argument in listed):
        raise ConfigurationError(f"--summary {arguments.summary}: that is an input")
    excluded = own_places(arguments.output, *([arguments.summary] if arguments.summary else []))
    output_format = arguments.format or SUFFIXES.get(arguments.output.suffix.lower(), "parquet")
    return Job(
        Inputs(listed, labels, excluded),
        ReadOptions(arguments.scale, arguments.max_pixels or settings.max_pixels, labels),
        Form(output_format, arguments.probabilities, arguments.fallback_label),
        arguments.output,
        {"model": f"{model.name}/{model.version}", "model sha256": model.manifest.file.sha256},
        _limit(arguments),
        arguments.resume,
        arguments.retry_failed,
    )


def _listed(arguments: list[str]) -> list[str]:
    """Return the inputs, - replaced by the paths on standard input."""
    inputs: list[str] = []
    for argument in arguments:
        inputs += _read_list() if argument == "-" else [argument]
    return inputs


def _read_list() -> list[str]:
    """Return the paths on standard input, whatever bytes the file system has in them."""
    import codecs
    import os

    from serving.errors import ConfigurationError

    if sys.stdin is None:
        raise ConfigurationError("-: expected a list of paths on standard input, which is closed")
    try:
        data = sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise ConfigurationError(f"-: cannot read standard input: {error.strerror}") from error
    return [os.fsdecode(line) for line in data.splitlines() if line]


def _limit(arguments: argparse.Namespace) -> "ErrorLimit":
    from serving.errors import ConfigurationError
    from serving.offline.limits import ErrorLimit

    if arguments.fail_fast:
        return ErrorLimit(count=0)
    if arguments.max_errors is None:
        return ErrorLimit()
    try:
        return ErrorLimit.parse(arguments.max_errors)
    except ValueError as error:
        raise ConfigurationError(f"--max-errors {arguments.max_errors}: expected N or P%") from error


def _report(arguments: argparse.Namespace, model: "LoadedModel", result: "Result") -> None:
    from serving.offline.progress import say

    summary = result.summary
    record = summary.as_json() | {
        "earlier_rows": result.earlier_rows,
        "seconds": round(result.seconds, 3),
        "images_per_second": round(result.images_per_second, 1),
        "model": {
            "name": model.name,
            "version": model.version,
            "sha256": model.manifest.file.sha256,
            "provider": model.runtime.provider,
        },
        "output": str(arguments.output),
    }
    if arguments.summary:
        _write_summary(arguments.summary, json.dumps(record, indent=1) + "\n")
    if not arguments.quiet and sys.stderr is not None:  # as with 2>&-
        speed = f"{result.images_per_second:,.0f} images/s with {model.name}/{model.version}"
        say(f"{arguments.output}: {summary.as_text()}{result.seconds:.2f} s, {speed}\n", sys.stderr)


def _write_summary(path: Path, text: str) -> None:
    from serving.errors import ServingError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ServingError(f"cannot write {path}: {error.strerror}; the output is complete") from error
