"""From files to token batches: tables, splits, prompts, tokens, order."""
