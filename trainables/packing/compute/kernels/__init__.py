"""Triton kernels: how a pack computes on a GPU."""
