"""What is shown of a sweep while it runs: the live table, its status, W&B and other trackers."""
