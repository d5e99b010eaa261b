"""A pack's scores: greedy answers and likelihoods for many slots at once."""
