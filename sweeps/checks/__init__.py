"""All that can be found wrong before a GPU is used, and the record of what was asked for."""
