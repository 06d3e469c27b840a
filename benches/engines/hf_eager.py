"""Hugging Face with attn_implementation="eager"."""

from .huggingface import huggingface

ENGINE = huggingface("eager")
