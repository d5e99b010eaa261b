"""Many trials at once over one frozen base, each of which gets what it gets alone."""
