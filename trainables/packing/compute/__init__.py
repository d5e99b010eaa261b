"""What a pack computes: model, adapters, kernels, optimizer. No Ray."""
