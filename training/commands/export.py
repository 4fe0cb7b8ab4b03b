"""`export`: write a checkpoint as one ONNX file."""

import argparse
import sys
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("export", help="write a checkpoint as one ONNX file, and check its form")
    parser.add_argument("checkpoint", type=Path, help="file that `train` wrote")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="divides the logits before the softmax (default: 1)"
    )
    parser.add_argument("--architecture", help="the network of a bare state_dict, e.g. mnist-cnn")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export, and keep the file only if its form is right and it agrees with the network at every batch size."""
    import tempfile

    import numpy as np

    from training.checkpoint import load, load_weights
    from training.export import export
    from training.verify import (
        BATCH_SIZES,
        Subject,
        check_batch_sizes,
        check_graph,
        check_probabilities,
        format_checks,
        require,
    )

    source, output = arguments.checkpoint, arguments.output
    model = load_weights(source, arguments.architecture) if arguments.architecture else load(source).model()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        file = Path(folder) / output.name
        export(model, file, arguments.temperature)
        noise = np.random.default_rng(0).integers(0, 256, (max(BATCH_SIZES), 28, 28), np.uint8)
        subject = Subject(file.read_bytes(), model, noise)
        checks = [
            *check_graph(subject),
            check_batch_sizes(subject),
            check_probabilities(subject, arguments.temperature),
        ]
        sys.stdout.write(format_checks(checks))
        require(checks)
        file.replace(output)
    sys.stdout.write(f"exported: {output}, {output.stat().st_size:,} bytes\n")
    return 0
