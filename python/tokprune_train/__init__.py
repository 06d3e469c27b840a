"""Training side of tokprune-kernels: the objectives of LTP and ToP. It uses the public API of tokprune_kernels, never the reverse."""
