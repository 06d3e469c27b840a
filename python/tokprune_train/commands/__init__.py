"""Subcommands of `tokprune` that need the training side; tokprune_kernels finds them by their entry points (pyproject.toml)."""
