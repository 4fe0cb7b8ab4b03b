"""gRPC: the Open Inference Protocol v2, health and reflection, within a worker's event loop.

`inference.proto` is the source of `stubs/`; made anew by `make protos`.
"""
