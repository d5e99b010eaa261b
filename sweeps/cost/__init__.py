"""What a sweep costs in time and GPU-hours: foretold, kept to a budget, and accounted for."""
