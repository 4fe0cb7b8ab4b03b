"""The report of a published version: one HTML file that needs no network, its pictures, and a model card.

Must not know: how the figures came about.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from serving.manifest import Accuracy, Manifest
from training import plots, shapes
from training.checkpoint import Checkpoint
from training.figures import Scores
from training.layers import Row
from training.model_card import model_card, percent

REPORT_FILE_NAME = "report.html"
CARD_FILE_NAME = "MODEL_CARD.md"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 } th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd;
text-align: left; vertical-align: top } th { background: #f3f5f8 } img { max-width: 100% } figure { margin: 1rem 0 }
figcaption { color: #555 } .failed { color: #b00 }
"""
_CAPTIONS = {
    "curves.png": "Loss while training, and accuracy after each epoch.",
    "confusion.png": "Test digits: which was read as which. Only errors are coloured.",
    "reliability.png": "Test digits in 15 bins of equal numbers: on the line, confidence is what it says.",
    "risk_coverage.png": "Test digits: the fewer are accepted, the fewer of those err. The line is the threshold.",
    "misread.png": "Misread test digits, the surest error first: digit, answer, confidence.",
}


def write_report(folder: Path, manifest: Manifest, checkpoint: Checkpoint, test: Scores) -> None:
    """Write `report.html`, `MODEL_CARD.md` and the pictures into a version's folder.

    Args:
        folder: of the version.
        manifest: of the version, complete.
        checkpoint: what the version was made from.
        test: what the file makes of the test set.
    """
    pictures = draw(manifest, checkpoint, test)
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    (folder / CARD_FILE_NAME).write_text(model_card(manifest), encoding="utf-8")
    (folder / REPORT_FILE_NAME).write_text(page(manifest, checkpoint, pictures), encoding="utf-8")


def draw(manifest: Manifest, checkpoint: Checkpoint, test: Scores) -> dict[str, bytes]:
    """Return the pictures by file name."""
    pictures = {
        "curves.png": plots.curves(checkpoint.history),
        "confusion.png": plots.confusion(test),
        "reliability.png": plots.reliability_diagram(test),
        "risk_coverage.png": plots.risk_coverage_curve(test, manifest.acceptance.min_confidence),
    }
    if misread := plots.misread_digits(test):
        pictures["misread.png"] = misread
    return pictures


def page(manifest: Manifest, checkpoint: Checkpoint, pictures: Mapping[str, bytes]) -> str:
    """Return the report as HTML, its pictures inside."""
    title = html.escape(f"{manifest.name}, version {manifest.version}")
    layers = [
        (row.name, row.kind, _form(row), row.arithmetic, f"{row.parameters:,}", f"{row.multiply_adds:,}")
        for row in shapes.explain(checkpoint.model())
    ]
    parts = [
        f"<h1>{title}</h1><p>{html.escape(manifest.description)}. Published {html.escape(manifest.created)}.</p>",
        "<h2>Figures</h2>",
        _table(("Figure", "Value"), figures(manifest)),
        *(_picture(name, content) for name, content in pictures.items()),
        "<h2>Layers</h2>",
        _table(("Layer", "Kind", "Shape", "Arithmetic", "Parameters", "Multiply-adds"), layers),
        "<h2>Checks</h2>",
        _table(
            ("Check", "Result", "Figure", "Bound"),
            [
                (check.name, "passed" if check.passed else "failed", check.figure, check.bound)
                for check in manifest.checks
            ],
        ),
        "<h2>Recipe</h2>",
        _table(("Setting", "Value"), [(name, str(value)) for name, value in _settings(manifest)]),
    ]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en">{head}\n{body}\n</html>\n'


def figures(manifest: Manifest) -> list[tuple[str, str]]:
    """Return what was measured, by name."""
    rows = [(f"accuracy, {accuracy.split} set", _accuracy(accuracy)) for accuracy in manifest.accuracy]
    if seeds := manifest.seeds:
        rows.append(
            (
                f"test accuracy at seeds {', '.join(map(str, seeds.seeds))}",
                f"mean {percent(seeds.mean, 3)}, {percent(seeds.lowest)} to {percent(seeds.highest)}",
            )
        )
    acceptance, training = manifest.acceptance, manifest.training
    rows.append(("accepted from confidence", f"{acceptance.min_confidence:.4f} ({acceptance.chosen_on})"))
    if acceptance.coverage is not None and acceptance.error_among_accepted is not None:
        rows.append(("test digits accepted", percent(acceptance.coverage)))
        rows.append(("errors among accepted", percent(acceptance.error_among_accepted, 3)))
    rows.append(("temperature", f"{manifest.temperature:g}"))
    if calibration := manifest.calibration:
        rows.append(
            (
                f"expected calibration error, {calibration.bins} bins",
                f"{percent(calibration.error_test, 3)} (validation {percent(calibration.error_validation, 3)})",
            )
        )
    rows.append(("parameters", f"{training.parameters:,}"))
    rows.append(("multiply-adds per digit", f"{training.multiply_adds:,}"))
    rows.append(("file", f"{manifest.file.size_bytes:,} bytes, SHA-256 {manifest.file.sha256}"))
    return rows


def _accuracy(accuracy: Accuracy) -> str:
    low, high = accuracy.interval_95
    return (
        f"{percent(accuracy.accuracy)} ({accuracy.correct:,} of {accuracy.total:,}; "
        f"95 % interval {percent(low)} to {percent(high)})"
    )


def _form(row: Row) -> str:
    return " to ".join("x".join(map(str, shape)) for shape in (row.input, row.output))


def _settings(manifest: Manifest) -> list[tuple[str, object]]:
    training = manifest.training
    return [
        *training.hyperparameters.items(),
        ("seed", training.seed),
        ("epochs done", training.epochs),
        ("device", training.device),
        ("processes", training.processes),
        ("threads", training.threads),
        ("code", training.code_commit),
        *training.packages.items(),
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line("th", header) + "".join(line("td", row) for row in rows) + "</table>"


def _picture(name: str, content: bytes) -> str:
    source = base64.b64encode(content).decode("ascii")
    caption = html.escape(_CAPTIONS[name])
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{source}"><figcaption>{caption}</figcaption></figure>'
    )
