"""Certificates: how far a packed trial lies from the same trial trained alone."""
