"""What users get wrong, as real processes: each is told in two lines, and nothing is begun."""
