"""Scoring files: readers, scorer, journal, writers.

Must not know: transports, training.
"""
