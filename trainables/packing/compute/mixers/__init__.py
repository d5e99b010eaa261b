"""What mixes the tokens of a row: a file a kind of decoder layer."""
