"""The bundled tiny Qwen3 model and SAMSum-shaped rows behind --tiny: no GPU, no network."""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
SAMSUM_DIR: Path = Path(__file__).parent / "samsum"
