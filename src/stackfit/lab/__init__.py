"""Kernels of distributions, unchanged, run in QEMU to see what they do."""
