"""Serving: from a picture to a digit, over HTTP, gRPC and files.

Must not know: torch, training.
"""
