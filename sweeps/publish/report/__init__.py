"""report.html: one page with all that a sweep found, which opens without a network."""
