"""A process that trains by itself sees one GPU, as a trial of a sweep does."""

import os


def see_one_gpu() -> None:
    """Hides all GPUs but the first that this process may use, before it uses any.

    With several, transformers' Trainer divides every batch among them, which TRL refuses.
    """
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = names.split(",")[0]
