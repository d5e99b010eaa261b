"""The page on which the untuned base and an adapter answer side by side."""

HOST = "127.0.0.1"
"""The page is for this machine alone."""
