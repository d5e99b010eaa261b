"""Tests mirror the tree; tests/benchmarks holds longer proofs as commands."""
