"""The bundled tiny models and rows behind --tiny: no GPU, no network."""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
HYBRID_DIR: Path = Path(__file__).parent / "hybrid"
MODELS = {"tiny-hybrid": HYBRID_DIR}
"""Bundled models that --model names."""
SAMSUM_DIR: Path = Path(__file__).parent / "samsum"
TURKISH_YOUTUBE_DIR: Path = Path(__file__).parent / "turkish_youtube"
WIKIPEDIA_PT_DIR: Path = Path(__file__).parent / "wikipedia_pt"
MESSAGES_DIR: Path = Path(__file__).parent / "messages"
TURKISH_TWEETS_DIR: Path = Path(__file__).parent / "turkish_tweets"
