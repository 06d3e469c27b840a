"""Data sets for training and evaluation: read from anywhere, understood, tokenised, batched."""
