"""The search: which point comes next, and which trials go on."""
