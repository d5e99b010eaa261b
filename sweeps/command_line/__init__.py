"""What users type: spans of time, and flags of other trainers."""
