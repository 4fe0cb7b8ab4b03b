"""gRPC: the Open Inference Protocol v2, health and reflection, within a worker's event loop.

`inference.proto` is the source of `stubs/`; made anew by `make protos`.
"""

import os

# Its core would note on stderr, past our log and its format, whatever a stranger sends instead of a handshake, and, as
# an error, what it cannot read in a call. It reads this once, when grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
