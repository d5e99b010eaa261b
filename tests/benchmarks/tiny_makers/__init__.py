"""Makers of the bundled model and rows in trainables/tiny."""
