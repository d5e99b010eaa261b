"""The bench: packs beside TRL and transformers, on real row lengths."""
