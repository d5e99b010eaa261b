"""What may vary between trials, and which settings are tried first."""
