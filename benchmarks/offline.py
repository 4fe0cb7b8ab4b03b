"""Offline scoring side by side, in one run: our scorer, bare ONNX Runtime, and the tutorial's DataLoader loop.

    python benchmarks/offline.py [--model mnist-cnn] [--rows 60000] [--rounds 5] [--kinds idx csv pictures scans]

Each contender is a process of its own and is timed from its command line to its finished file, interleaved with the
others; peak memory is that of the process, as the kernel counts it. All write one digit per row, the same ones.
- scorer: `python -m serving score`.
- bare: NumPy reads the whole file, ONNX Runtime runs it in batches of 64 with the same threads. The lower bound.
  Pictures are decoded and prepared as the service does it, by as many processes, before the first batch.
- DataLoader: torch's Dataset of single rows, transforms, two worker processes; ONNX Runtime in the loop. Without torch
  it is left out.
`inside` is what a contender itself says of its speed: without the start of Python and the imports. Pictures are MNIST's
own 28x28, scans the same digits in ink on paper, 280x280.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from operator import ne
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parent.parent
Images = npt.NDArray[np.uint8]

# MNIST's training digits.
DIGITS = 60_000
# Of all digits: those between two that are as likely may be rounded otherwise in another batch.
MAX_DIFFERING = 0.001
SCORED = "scored.parquet"

SESSION = """
import sys, time, numpy as np, onnxruntime as ort
start_s = time.perf_counter()
model, source, output, threads = sys.argv[1:5]
options = ort.SessionOptions()
options.intra_op_num_threads = int(threads)
session = ort.InferenceSession(model, options)
def read():
    if source.endswith('.csv'):
        return np.loadtxt(source, np.uint8, delimiter=',', skiprows=1).reshape(-1, 28, 28)
    if source.endswith('.idx'):
        return np.frombuffer(open(source, 'rb').read(), np.uint8, offset=16).reshape(-1, 28, 28)
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from pathlib import Path
    from serving.preprocess import prepare
    with ProcessPoolExecutor(int(threads), get_context('spawn')) as pool:
        files = (path.read_bytes() for path in sorted(Path(source).iterdir()))
        return np.stack([prepared.image for prepared in pool.map(prepare, files, chunksize=64)])
def write(digits):
    with open(output, 'w') as file:
        file.write('row,digit\\n')
        file.writelines(f'{row},{digit}\\n' for row, digit in enumerate(digits))
    with open(output + '.rate', 'w') as file:
        file.write(str(len(digits) / (time.perf_counter() - start_s)))
"""

BARE = (
    SESSION
    + """
images = read()
batches = [session.run(['probabilities'], {'images': images[at:at + 64]})[0] for at in range(0, len(images), 64)]
write(np.concatenate(batches).argmax(axis=1).tolist())
"""
)

LOADER = (
    SESSION
    + """
import torch
from torchvision import transforms
class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.images, self.transform = read(), transforms.PILToTensor()
    def __len__(self):
        return len(self.images)
    def __getitem__(self, row):
        from PIL import Image
        return self.transform(Image.fromarray(self.images[row]))[0]
digits = []
for batch in torch.utils.data.DataLoader(Rows(), batch_size=64, num_workers=2):
    digits += session.run(['probabilities'], {'images': batch.numpy()})[0].argmax(axis=1).tolist()
write(digits)
"""
)


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command; return seconds, and the peak memory of its largest process in MB."""
    start_s = time.perf_counter()
    child = os.posix_spawn(command[0], command, dict(os.environ))
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start_s
    if status:
        sys.exit(f"{command[:4]} ended with status {status}")
    return seconds, usage.ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)


def rate_inside(name: str, folder: Path) -> float:
    """Return the images per second that a contender itself took down."""
    if name == "scorer":
        return float(json.loads((folder / "summary.json").read_text())["images_per_second"])
    return float((folder / f"{name}.csv.rate").read_text())


def digits_of(name: str, folder: Path) -> list[int | None]:
    """Return the digits that a contender wrote last."""
    if name == "scorer":
        from pyarrow import parquet  # type: ignore[import-untyped]  # here: see `write`

        digits: list[int | None] = parquet.read_table(folder / SCORED, columns=["digit"])["digit"].to_pylist()
        return digits
    lines = (folder / f"{name}.csv").read_text().splitlines()[1:]
    return [int(line.partition(",")[2]) for line in lines]


def check_digits(names: list[str], count: int, folder: Path) -> str | None:
    """Return what is wrong if contenders did not read the same digits of all images."""
    digits = {name: digits_of(name, folder) for name in names}
    for name, found in digits.items():
        if len(found) != count:
            return f"{name} wrote {len(found)} digits of {count} images"
        differing = sum(map(ne, found, digits[names[0]]))
        if differing > MAX_DIFFERING * count:
            return f"{name} reads {differing} of {count} digits otherwise than {names[0]}"
    return None


def write_idx(images: Images, folder: Path) -> Path:
    """Write images as one IDX file."""
    path = folder / "digits.idx"
    header = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in images.shape)
    path.write_bytes(header + images.tobytes())
    return path


def write_csv(images: Images, folder: Path) -> Path:
    """Write images as Kaggle's test.csv."""
    path = folder / "digits.csv"
    with path.open("w", encoding="ascii") as file:
        file.write(",".join(f"pixel{number}" for number in range(784)) + "\n")
        file.writelines(",".join(map(str, row)) + "\n" for row in images.reshape(-1, 784).tolist())
    return path


def write_pictures(images: Iterable[Images], folder: Path) -> Path:
    """Write images as PNG files."""
    pictures = folder / "digits"
    pictures.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(pictures / f"{number:06}.png"), image)
    return pictures


def write_scans(images: Images, folder: Path) -> Path:
    """Write images as PNG files of 280x280 pixels, dark ink on light paper with a little grain."""
    chance = np.random.default_rng(0)
    grain = chance.normal(0, 3, (8, 280, 280))
    large = (cv2.resize(image, (280, 280), interpolation=cv2.INTER_CUBIC) for image in images)
    scans = (235 - 0.75 * image + grain[number % 8] for number, image in enumerate(large))
    return write_pictures((scan.clip(0, 255).astype(np.uint8) for scan in scans), folder)


WRITERS: dict[str, Callable[[Images, Path], Path]] = {
    "idx": write_idx,
    "csv": write_csv,
    "pictures": write_pictures,
    "scans": write_scans,
}


def write(kind: str, count: int, folder: Path) -> Path:
    """Write the first `count` training digits, in a process of its own: a child inherits its parent's peak memory."""
    data = (ROOT / "data" / "train-images-idx3-ubyte").read_bytes()
    images = np.frombuffer(data, np.uint8, offset=16).reshape(-1, 28, 28)
    return WRITERS[kind](images[:count], folder)


def contenders(model: str, source: Path, folder: Path, threads: int) -> dict[str, list[str]]:
    """Return the command line of each contender."""
    version = max(int(folder.name) for folder in (ROOT / "models" / model).iterdir() if folder.name.isdecimal())
    graph = ROOT / "models" / model / str(version) / "model.onnx"

    def script(name: str, code: str) -> list[str]:
        return ["-c", code, str(graph), str(source), str(folder / f"{name}.csv"), str(threads)]

    scorer = [
        "-m",
        "serving",
        "score",
        str(source),
        "--model",
        f"{model}/{version}",
        "--workers",
        str(threads),
        "--quiet",
    ]
    files = ["--output", str(folder / SCORED), "--summary", str(folder / "summary.json")]
    found = {"scorer": [*scorer, *files], "bare": script("bare", BARE)}
    if find_spec("torch") and find_spec("torchvision"):
        found["DataLoader"] = script("DataLoader", LOADER)
    return {name: [sys.executable, *command] for name, command in found.items()}


def compare(kind: str, count: int, arguments: argparse.Namespace) -> None:
    """Time the contenders on one kind of input and print a row for each, if they read the same digits."""
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        folder = Path(name)
        source = pool.submit(write, kind, count, folder).result()
        commands = contenders(arguments.model, source, folder, arguments.threads)
        measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                measured[name].append((*measure(command), rate_inside(name, folder)))
        if wrong := pool.submit(check_digits, list(commands), count, folder).result():
            sys.exit(f"{kind}: {wrong}")
    for name, figures in measured.items():
        seconds, peak_mb, inside = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{kind:<10}{name:<12}{count / seconds:>12,.0f}{inside:>12,.0f}{seconds:>9.2f}{peak_mb:>9,.0f}")


def main() -> None:
    """Compare on every kind of input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mnist-cnn")
    parser.add_argument("--rows", type=int, default=DIGITS)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--kinds", nargs="+", choices=WRITERS, default=list(WRITERS))
    arguments = parser.parse_args()
    if max(arguments.rows, arguments.pictures) > DIGITS:
        parser.error(f"--rows and --pictures: expected at most {DIGITS}, the number of training digits")
    print(f"{arguments.model}, {arguments.threads} threads, median of {arguments.rounds} interleaved rounds")
    print(f"{'input':<10}{'contender':<12}{'images/s':>12}{'inside':>12}{'seconds':>9}{'peak MB':>9}")
    os.chdir(ROOT)
    for kind in arguments.kinds:
        compare(kind, arguments.rows if kind in ("idx", "csv") else arguments.pictures, arguments)


if __name__ == "__main__":
    main()
