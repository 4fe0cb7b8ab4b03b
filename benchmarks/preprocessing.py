"""Measures the preprocessing: CPU time per picture, accuracy on generated pictures, rates of refusal.

python benchmarks/preprocessing.py [--model NAME] [--count 1000]
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from serving.preprocess import Prepared, prepare
from serving.preprocess.decode import decode
from serving.repository import LoadedModel, Repository, load
from serving.settings import Settings
from tests.pictures import KINDS, encode, letter, outline, picture_of, texture

MAX_PIXELS = 50_000_000
Images = npt.NDArray[np.uint8]


def read_test_set(folder: Path) -> tuple[Images, Images]:
    """Return MNIST's test images uint8 (10000, 28, 28) and labels."""
    images = np.fromfile(folder / "t10k-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28)
    return images, np.fromfile(folder / "t10k-labels-idx1-ubyte", np.uint8)[8:]


def speed_cases(digit: Images) -> dict[str, tuple[bytes, int]]:
    """Return file and number of repetitions per case."""
    rng = np.random.default_rng(0)
    canvas = np.zeros((512, 512, 4), np.uint8)
    strokes = outline(digit, 330, rng)[:512, :512]
    canvas[: strokes.shape[0], : strokes.shape[1], 3] = strokes
    photo = np.clip(190 + rng.normal(0, 6, (3000, 4000, 3)), 0, 255).astype(np.uint8)
    strokes = outline(digit, 1500, rng)
    photo[300 : 300 + strokes.shape[0], 800 : 800 + strokes.shape[1]][strokes > 0] = (40, 45, 90)
    usual = partial(encode, compress_level=6)  # as most programs pack one
    return {
        "28x28 PNG in MNIST's form": (usual(digit), 500),
        "28x28 RGB PNG of another form": (usual(np.roll(np.dstack([255 - digit] * 3), 3, 1)), 200),
        "512x512 RGBA PNG": (usual(canvas), 50),
        "12-megapixel JPEG": (encode(photo, "JPEG", quality=85), 10),
    }


def measure_speed(digit: Images) -> list[str]:
    """Return a line per case: milliseconds of CPU, the fastest repetition."""
    lines = []
    for name, (data, repetitions) in speed_cases(digit).items():
        whole = _fastest_ms(partial(prepare, data), repetitions)
        decoding = _fastest_ms(partial(decode, data, MAX_PIXELS), repetitions)
        lines.append(f"{name:32} {whole:8.3f} ms, of which decoding {decoding:8.3f} ms")
    return lines


def _fastest_ms(call: Callable[[], object], repetitions: int) -> float:
    call()
    fastest = float("inf")
    for _ in range(repetitions):
        start = time.thread_time()
        call()
        fastest = min(fastest, time.thread_time() - start)
    return 1000 * fastest


def measure_kinds(images: Images, labels: Images, model: LoadedModel) -> list[str]:
    """Return a line per kind of picture: accuracy and the share that is refused."""
    lines = []
    for kind in KINDS:
        prepared = [prepare(picture_of(kind, digit, seed)) for seed, digit in enumerate(images)]
        probabilities = model.runtime.run(np.stack([one.image for one in prepared])).probabilities
        right = float((probabilities.argmax(1) == labels).mean())
        lines.append(f"{kind:12} right {100 * right:6.2f} %, {_acceptance(prepared, probabilities, model)}")
    return lines


def measure_refusals(count: int, model: LoadedModel) -> list[str]:
    """Return a line for letters and one for textures: how many are accepted."""
    lines = []
    for name, make in (("letters", letter), ("textures", texture)):
        prepared = [prepare(make(seed)) for seed in range(count)]
        probabilities = model.runtime.run(np.stack([one.image for one in prepared])).probabilities
        lines.append(f"{name:12} {_acceptance(prepared, probabilities, model)}")
    return lines


def _acceptance(prepared: Sequence[Prepared], probabilities: npt.NDArray[np.float32], model: LoadedModel) -> str:
    formed = np.array([not one.reasons for one in prepared])
    sure = probabilities.max(1) >= model.manifest.acceptance.min_confidence
    reasons = Counter(reason for one in prepared for reason in one.reasons)
    return (
        f"accepted {100 * (formed & sure).mean():6.2f} %, by form alone {100 * formed.mean():6.2f} %; "
        f"{', '.join(f'{reason} {count}' for reason, count in reasons.most_common()) or 'no reasons'}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), help="model repository")
    parser.add_argument("--model", default=Settings().default_model, help="name of the model")
    parser.add_argument("--data", type=Path, default=Path("data"), help="MNIST's IDX files")
    parser.add_argument("--count", type=int, default=1000, help="pictures of each kind")
    options = parser.parse_args(arguments)
    try:
        images, labels = read_test_set(options.data)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}; python -m training fetch-data fetches MNIST")
    model = load(Repository(options.models).folder(options.model), "cpu", 1)
    print(f"OpenCV {cv2.__version__}; CPU time of one thread")
    print("\n".join(measure_speed(images[0])))
    print(f"\nmodel {model.name} version {model.version}, {options.count} pictures each")
    print("\n".join(measure_kinds(images[: options.count], labels[: options.count], model)))
    print("\n".join(measure_refusals(options.count, model)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
