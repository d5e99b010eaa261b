"""BERTScore with any encoder (Zhang et al. 2020, arXiv 1904.09675), for the end of a sweep.

Every token is matched with the most similar token of the other side, by the cosine of their hidden
states at one layer. As in the authors' bert-score package tokens that the tokenizer adds ([CLS],
[SEP]) can be matched but carry no weight, no token weighs more for being rare (idf), and scores are
not rescaled by a baseline. That package itself fails on an empty answer with transformers 5, needs
matplotlib, and where all similarities are negative its scores depend on the padding.

The authors' layers: bert-base-multilingual-cased 9 (Turkish, Portuguese), roberta-large 17 and
microsoft/deberta-xlarge-mnli 40 (English).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer, GPT2Tokenizer, RobertaTokenizer

from trainables.errors import SweepAborted

Embedded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Unit embeddings (rows, tokens, hidden); whether a position is a token, and its weight in the
score, 0 for what the tokenizer added, (rows, tokens)."""
NAMES = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
MAX_LENGTH_TOKENS = 512
"""Texts are cut after as many tokens, or after fewer if the tokenizer says so."""
Tokens = tuple[list[int], list[int]]
"""A text's tokens, and for each 1 or, if the tokenizer added it, 0."""


class BertScore:
    """Precision, recall and F1 of answers, -100 to 100.

    Args:
        encoder: Hub id or folder of a model with safetensors weights.
        layer: block whose output is compared, from 1 on; the last but a few usually agree best.
        batch_size: pairs that are encoded at once.

    Raises:
        SweepAborted: the encoder cannot be loaded or has fewer layers.
    """

    def __init__(
        self, encoder: str, layer: int, *, device: str = "cpu", batch_size: int = 64
    ) -> None:
        self._encoder, self._layer = encoder, layer
        self._device, self._batch_size = device, batch_size
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                encoder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            fix = "name a folder or a Hub model with a tokenizer and safetensors weights"
            raise SweepAborted(
                f"BERTScore's encoder {encoder} cannot be loaded: {error}", fix
            ) from error
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        num_layers = model.config.num_hidden_layers
        if layer > num_layers:
            error_text = f"BERTScore's layer is {layer}, and {encoder} has {num_layers}"
            raise SweepAborted(error_text, f"give a layer from 1 to {num_layers}")
        self._model: Any = model.eval().to(device)

    def score_means(
        self, predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, float]:
        """The means of the rows' scores."""
        rows = self.score_rows(predictions, references)
        return {name: sum(row[name] for row in rows) / len(rows) for name in NAMES}

    def score_rows(
        self, predictions: Sequence[str], references: Sequence[str]
    ) -> list[dict[str, float]]:
        """The scores of each row; a side without a token of its own scores 0."""
        sides = map(self._encode, predictions), map(self._encode, references)
        pairs = list(zip(*sides, strict=True))
        scores = [dict.fromkeys(NAMES, 0.0) for _ in pairs]
        scored = [index for index, pair in enumerate(pairs) if all(any(side[1]) for side in pair)]
        # Those of similar length are padded together.
        scored.sort(key=lambda index: max(len(side[0]) for side in pairs[index]), reverse=True)
        for begin in range(0, len(scored), self._batch_size):
            batch = scored[begin : begin + self._batch_size]
            candidate, reference = (
                self._embed([pairs[index][side] for index in batch]) for side in (0, 1)
            )
            for index, row in zip(batch, match(candidate, reference).tolist(), strict=True):
                scores[index] = {name: 100 * v for name, v in zip(NAMES, row, strict=True)}
        return scores

    def compute_fingerprint(self) -> str:
        """Digest of all that moves a score; scores with unlike fingerprints are never compared."""
        commit = getattr(self._model.config, "_commit_hash", None)
        settings = {
            "metric": NAMES,
            "encoder": self._encoder if commit else None,
            "revision": commit or _digest_files(Path(self._encoder)),
            "layer": self._layer,
            "max_length_tokens": MAX_LENGTH_TOKENS,
            "transformers": transformers.__version__,
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def _encode(self, text: str) -> Tokens:
        # Byte-level BPE tells a word at the beginning from the same word after a space.
        is_spaced = isinstance(self._tokenizer, (GPT2Tokenizer, RobertaTokenizer))
        encoded = self._tokenizer(
            " " * is_spaced + text.strip(),
            truncation=True,
            max_length=min(MAX_LENGTH_TOKENS, self._tokenizer.model_max_length),
            return_special_tokens_mask=True,
        )
        return encoded["input_ids"], [1 - added for added in encoded["special_tokens_mask"]]

    @torch.no_grad()
    def _embed(self, texts: Sequence[Tokens]) -> Embedded:
        pad_id = self._tokenizer.pad_token_id or 0
        ids = pad_sequence([torch.tensor(ids) for ids, _ in texts], True, pad_id)
        weights = pad_sequence([torch.tensor(w).float() for _, w in texts], True)
        lengths = torch.tensor([len(ids) for ids, _ in texts])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        ids, mask, weights = (t.to(self._device) for t in (ids, mask, weights))
        output = self._model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
        return normalize(output.hidden_states[self._layer], dim=-1), mask, weights


def match(candidates: Embedded, references: Embedded) -> torch.Tensor:
    """Precision, recall and F1, (rows, 3); equations 1 to 3 of the paper."""
    candidate, candidate_mask, candidate_weights = candidates
    reference, reference_mask, reference_weights = references
    similarity = candidate @ reference.transpose(1, 2)  # (rows, candidate, reference)
    is_pair = candidate_mask[:, :, None] & reference_mask[:, None, :]
    similarity = similarity.masked_fill(~is_pair, -2.0)
    best, best_of_reference = similarity.amax(dim=2), similarity.amax(dim=1)
    precision = (best * candidate_weights).sum(dim=1) / candidate_weights.sum(dim=1)
    recall = (best_of_reference * reference_weights).sum(dim=1) / reference_weights.sum(dim=1)
    total = precision + recall
    f1 = torch.where(total == 0, 0.0, 2 * precision * recall / total)
    return torch.stack([precision, recall, f1], dim=1)


def _digest_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()
