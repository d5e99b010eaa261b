"""Scores of answers, inside the project so that no node downloads code."""
