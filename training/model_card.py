"""The model card of a published version: what it is for, what it is not for, and how good it is.

Must not know: networks, plots.
"""

from serving.manifest import Manifest


def percent(share: float, digits: int = 2) -> str:
    """Return a share, 0 to 1, as a percentage."""
    return f"{100 * share:.{digits}f} %"


def model_card(manifest: Manifest) -> str:
    """Return the card as Markdown. Source: Mitchell et al. 2019, "Model Cards for Model Reporting"."""
    training = manifest.training
    return f"""# {manifest.name}, version {manifest.version}

{manifest.description}. {training.parameters:,} parameters, {training.multiply_adds:,} multiply-adds per digit.

## Intended use

Reads one handwritten digit, 0 to 9, in a picture of 28x28 pixels in MNIST's form, as the service's preprocessing
makes it from drawings, scans and photographs. Answers below a confidence of {manifest.acceptance.min_confidence:.4f}
are marked as not accepted; let a person look at those.

Not for: whole numbers, letters, other numerals than 0 to 9, or decisions about people that nobody checks.

## Data

MNIST (LeCun, Cortes, Burges): 60,000 training and 10,000 test digits by American census employees and high-school
students. {_held_back(manifest)}{_drawn(manifest)}

## Figures

{_figures(manifest)}

## Limits

- Hands unlike those of 1990s America: a 1 with a long upstroke, a 7 with a bar or a 9 with a curled foot are rarer in
  MNIST than elsewhere, and read worse.
- The figures are those of MNIST's own pictures. A photograph adds the errors of its preprocessing.
- What is no digit gets a digit all the same; its confidence is low only as far as training has seen the like.
"""


def _held_back(manifest: Manifest) -> str:
    size = manifest.training.hyperparameters["validation_size"]
    if not size:
        return "All training digits were learnt from."
    seeds = manifest.seeds
    seed = " and\nthe seed" if seeds and len(seeds.seeds) > 1 and seeds.best_on_validation else ""
    temperature = "the temperature, the threshold" if seed else "the temperature and the\nthreshold"
    return (
        f"{size:,} training digits, each digit in its share, were held back: {temperature}{seed} were chosen on them, "
        "not on the test set."
    )


def _drawn(manifest: Manifest) -> str:
    settings = manifest.training.hyperparameters
    kinds = [
        f"{settings[name]:,} {text}"
        for name, text in (
            ("redrawn_digits", "training digits drawn on paper anew"),
            ("printed_digits", "printed digits"),
            ("outliers", "pictures of letters, scribbles and textures, for which no digit is the right answer"),
        )
        if settings.get(name)
    ]
    return "".join(["\n\nLearnt from besides:\n", *(f"\n- {kind}" for kind in kinds)]) if kinds else ""


def _figures(manifest: Manifest) -> str:
    lines = [
        f"- {record.split} set: {percent(record.accuracy)} right ({record.correct:,} of {record.total:,}), "
        f"95 % interval {percent(record.interval_95[0])} to {percent(record.interval_95[1])}"
        for record in manifest.accuracy
    ]
    if seeds := manifest.seeds:
        lines.append(
            f"- test set over {len(seeds.seeds)} seed(s): mean {percent(seeds.mean, 3)}, "
            f"{percent(seeds.lowest)} to {percent(seeds.highest)}"
        )
    acceptance = manifest.acceptance
    if acceptance.coverage is not None and acceptance.error_among_accepted is not None:
        lines.append(
            f"- accepted: {percent(acceptance.coverage)} of the test digits, of which "
            f"{percent(acceptance.error_among_accepted, 3)} are wrong"
        )
    if calibration := manifest.calibration:
        lines.append(f"- expected calibration error: {percent(calibration.error_test, 3)} on the test set")
    return "\n".join(lines)
