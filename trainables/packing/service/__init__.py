"""A pack as a Ray actor: its loop, its client, its checkpoints and ledger."""
