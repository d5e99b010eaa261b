"""The finals and the test: who trains again, who wins and how surely, and what was answered."""
