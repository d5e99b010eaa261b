"""The loop: the trial controller, its Ray Tune adapter and the pool of packs."""
