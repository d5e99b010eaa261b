"""Metrics of the user's own: a function in a file, or a module of evaluate, in a process apart."""
