"""The GPU's kernels, in Triton: every module has the kernels and launchers of the ops in the module of `ops` of that name.

Importing this package imports triton; nothing else of tokprune_kernels imports it before a tensor on a GPU asks for it.
"""
