"""Checkpoints of the papers' official code, read as models that this package prunes."""
