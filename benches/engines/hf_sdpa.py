"""Hugging Face with attn_implementation="sdpa"."""

from .huggingface import huggingface

ENGINE = huggingface("sdpa")
