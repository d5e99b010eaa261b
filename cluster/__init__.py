"""Where a sweep runs: a Ray cluster that exists, or one started on this machine."""
