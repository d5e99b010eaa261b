"""The run folder: the event log, trials.csv, paths and files. Imports nothing above it."""
