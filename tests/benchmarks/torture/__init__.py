"""Kills a sweep's processes at random moments, then checks that nothing was lost."""
