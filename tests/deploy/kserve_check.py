"""Holds manifests against KServe's types, in a process of its own: its stubs and Triton's cannot be loaded together."""

import sys
from pathlib import Path

import kserve.models  # noqa: F401  tests.deploy.schema finds its types

from tests.deploy.schema import check
from tests.deploy.tools import documents

if __name__ == "__main__":
    path, kind = sys.argv[1:]
    for document in documents(Path(path)):
        # KServe's metadata is of its own type, which only it has.
        check(document.pop("metadata"), "V1ObjectMeta")
        check(document, kind, document["kind"])
