"""What `gpu.py` checks and measures on a GPU, a module for each kind of work. None of it needs the compiled CPU kernels."""
