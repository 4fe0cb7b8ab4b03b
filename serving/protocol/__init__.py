"""The Open Inference Protocol v2 without a transport: tensors, requests, answers, descriptions.

Must not know: HTTP, gRPC.
"""
