"""What a model folder tells, and loading it, in NF4 or not."""
