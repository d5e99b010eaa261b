"""What is told of a sweep while it runs: the event log, the live table and W&B."""
