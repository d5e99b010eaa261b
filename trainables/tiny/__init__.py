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
NAMES = {
    MODEL_DIR.name: ("tiny-qwen3", "a bundled tiny base"),
    HYBRID_DIR.name: ("tiny-hybrid", "a bundled tiny base"),
    SAMSUM_DIR.name: ("samsum-tiny", "bundled synthetic dialogues"),
    TURKISH_YOUTUBE_DIR.name: ("turkish-youtube-tiny", "bundled synthetic transcripts"),
    WIKIPEDIA_PT_DIR.name: ("wikipedia-pt-tiny", "bundled synthetic articles"),
    MESSAGES_DIR.name: ("messages-tiny", "bundled synthetic messages"),
    TURKISH_TWEETS_DIR.name: ("turkish-tweets-tiny", "bundled synthetic tweets"),
}
"""What cards and reports call a folder, whose rows are not the dataset's, and what it is."""


def find_name(path: str) -> tuple[str, str] | None:
    """The folder's of NAMES, wherever the project lies; None of all else."""
    folder = Path(path)
    is_bundled = folder.is_absolute() and folder.parent.parts[-2:] == FOLDER.parts[-2:]
    return NAMES.get(folder.name) if is_bundled else None
