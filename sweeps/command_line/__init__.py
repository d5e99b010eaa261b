"""What users type and see: flags and their help, spans of time, output that is safe to show."""
