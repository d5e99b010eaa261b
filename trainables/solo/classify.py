"""Choose a label by its likelihood: no answer is generated, so none can be no label at all.

The likelihood of a label is that of the whole answer that training taught: its tokens and the end
of turn after them, not divided by their number. So it is the probability that greedy decoding aims
at, and a label that begins another one competes fairly.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from trainables.data.tokens import Example


def label_log_probs(
    causal: PreTrainedModel,
    prompts: Sequence[list[int]],
    labels: Sequence[list[int]],
    batch_size: int,
) -> Tensor:
    """float64 log-probability (S, L) of each label after each prompt, by transformers.

    Args:
        causal: the language model, its adapter switched on.
        prompts: S, as tokens.
        labels: L, as encode_targets gives them.
        batch_size: prompts that are read together, once for each label.
    """
    log_probs_SL = torch.empty(len(prompts), len(labels), dtype=torch.float64)
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for begin in range(0, len(order), batch_size):
        indices = order[begin : begin + batch_size]
        for column, label in enumerate(labels):
            log_probs_SL[indices, column] = _batch(causal, [prompts[i] for i in indices], label)
    return log_probs_SL


def _batch(causal: PreTrainedModel, prompts: Sequence[list[int]], label: list[int]) -> Tensor:
    """Log-probability of one label after each prompt (S,)."""
    examples = [Example(prompt, label) for prompt in prompts]
    width = max(len(example.input_ids) for example in examples)
    gaps = [width - len(example.input_ids) for example in examples]
    pairs = list(zip(examples, gaps, strict=True))
    input_ids = torch.tensor([e.input_ids + [0] * gap for e, gap in pairs])  # (rows, tokens)
    mask = torch.tensor([[1] * (width - gap) + [0] * gap for gap in gaps])
    device = causal.device
    hidden = causal.base_model(
        input_ids=input_ids.to(device), attention_mask=mask.to(device), use_cache=False
    ).last_hidden_state
    ends = torch.tensor([[len(prompt)] for prompt in prompts], device=device)
    positions = ends - 1 + torch.arange(len(label), device=device)  # (rows, label tokens)
    at_labels = hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.shape[2]))
    logits = causal.get_output_embeddings()(at_labels).float()
    targets = torch.tensor(label, device=device).expand(len(prompts), -1)
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return -losses.view_as(targets).double().sum(dim=1).cpu()
