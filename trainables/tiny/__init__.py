"""The bundled tiny models and rows behind --tiny: no GPU, no network."""

from pathlib import Path

FOLDER: Path = Path(__file__).parent
MODEL_DIR: Path = FOLDER / "model"
HYBRID_DIR: Path = FOLDER / "hybrid"
MODELS = {"tiny-hybrid": HYBRID_DIR}
"""Bundled models that --model names."""
SAMSUM_DIR: Path = FOLDER / "samsum"
TURKISH_YOUTUBE_DIR: Path = FOLDER / "turkish_youtube"
WIKIPEDIA_PT_DIR: Path = FOLDER / "wikipedia_pt"
MESSAGES_DIR: Path = FOLDER / "messages"
TURKISH_TWEETS_DIR: Path = FOLDER / "turkish_tweets"
