"""`shapes`: explain what every layer of a network, or layers of your own, make of their input."""

import argparse
import sys
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser("shapes", help="explain the shape and the cost of every layer")
    parser.add_argument("architecture", nargs="?", help="mnist-mlp, mnist-cnn, ...; or --input and --layers")
    parser.add_argument("--input", metavar="CxHxW", help="shape of one example, for example 3x60x60")
    parser.add_argument(
        "--layers",
        metavar="LAYERS",
        help="layers in a row, in quotes: conv(OUT,kK,sS,pP) max-pool(K) avg-pool(K) relu tanh flatten linear(OUT)",
    )
    parser.add_argument("--batch", type=int, help="examples at a time (default: N, any number)")
    parser.add_argument(
        "--plot",
        nargs="?",
        type=Path,
        const=Path("artifacts/shapes"),
        metavar="FOLDER",
        help="draw the kernels and what each layer makes of one digit (default folder: artifacts/shapes)",
    )
    parser.add_argument("--checkpoint", type=Path, help="weights to draw (default: untrained ones)")
    parser.add_argument("--digit", type=int, metavar="INDEX", help="test image to draw (default: 0)")
    parser.add_argument("--data", type=Path, help="folder of the MNIST files of which it is one (default: data)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; return 0."""
    from serving.errors import InvalidInput

    own_layers = arguments.input is not None or arguments.layers is not None
    if own_layers == (arguments.architecture is not None) or (arguments.input is None) != (arguments.layers is None):
        raise InvalidInput("expected an architecture, or both --input and --layers")
    if arguments.plot is None and (arguments.digit is not None or arguments.data is not None):
        raise InvalidInput("--digit and --data choose what --plot draws, which is not asked for")
    if arguments.batch is not None and arguments.batch < 0:
        raise InvalidInput(f"--batch {arguments.batch}: expected 0 or more")
    if own_layers:
        return _explain_text(arguments)
    return _explain_network(arguments)


def _explain_text(arguments: argparse.Namespace) -> int:
    from serving.errors import InvalidInput
    from training.layer_text import parse_layers, parse_shape, table
    from training.layers import chain

    if arguments.plot or arguments.checkpoint:
        raise InvalidInput("--plot and --checkpoint need an architecture")
    rows = chain(parse_layers(arguments.layers), parse_shape(arguments.input))
    sys.stdout.write(table(rows, arguments.batch))
    return 0


def _explain_network(arguments: argparse.Namespace) -> int:
    from training.architectures import build
    from training.checkpoint import load_weights
    from training.layer_text import table
    from training.shapes import explain

    name, checkpoint = arguments.architecture, arguments.checkpoint
    model = load_weights(checkpoint, name) if checkpoint else build(name)
    sys.stdout.write(table(explain(model), arguments.batch))
    if arguments.plot:
        from serving.errors import InvalidInput
        from training.layer_pictures import draw
        from training.mnist import load

        images, digit = load(arguments.data or Path("data")).test_images, arguments.digit or 0
        if not 0 <= digit < len(images):
            raise InvalidInput(f"--digit {digit}: expected 0 to {len(images) - 1}")
        paths = draw(model, images[digit], arguments.plot)
        weights = (
            f"weights of {checkpoint}" if checkpoint else "untrained weights; --checkpoint shows a trained network"
        )
        sys.stdout.write(f"{len(paths)} pictures in {arguments.plot} ({weights})\n")
    return 0
