"""How good the search is: a table of full trainings, and searches replayed over it."""
