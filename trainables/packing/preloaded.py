"""What a pack imports, apart from Ray and from what looks for a GPU, so that a fork may use one.

bitsandbytes looks at its import, and PEFT imports it.
"""

import nltk.stem.porter
import pandas
import torch
import transformers.models.auto.modeling_auto
import transformers.models.qwen3.modeling_qwen3

import trainables.tasks

__all__ = ["nltk", "pandas", "torch", "trainables", "transformers"]

torch.compile(str)  # loads what bitsandbytes does, at whose import functions are wrapped so
