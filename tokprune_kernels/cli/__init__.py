"""The command line `tokprune` (entry point: `tokprune_kernels.cli.main:main`)."""
