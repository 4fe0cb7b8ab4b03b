"""One module per command; each has `register(subparsers)`, which sets `run` to a function of the parsed arguments."""
