"""Scores of texts beside ROUGE: of one answer, and of n-grams that are counted over all rows."""
