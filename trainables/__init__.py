"""One trial, from TrialConfig to a stream of reports."""
