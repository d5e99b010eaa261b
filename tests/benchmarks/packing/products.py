"""How many operations the matrix products of training are, forward and backward.

A multiplication and its addition are two. Only what must be computed counts: attention's products
below the diagonal, no forward pass again for the backward one, and of Gated DeltaNet the three
products of a token with its head's state, whatever a chunked kernel computes inside its chunks.
"""

from collections.abc import Iterable

from trainables.config import Hyperparameters
from trainables.data.tokens import Example
from trainables.models.model_facts import ModelFacts


def count_linear(facts: ModelFacts, num_tokens: int) -> int:
    """Operations of all frozen linear layers: 2 forward, 2 for the gradient of the input."""
    return 4 * facts.body_params * num_tokens


def count_products(facts: ModelFacts, params: Hyperparameters, rows: Iterable[Example]) -> int:
    """Operations of those, the adapters, the head at labels, attention and Gated DeltaNet."""
    lengths, labels = [], 0
    for row in rows:
        lengths.append(len(row.input_ids))
        labels += len(row.target_ids)
    num_tokens = sum(lengths)
    adapters = 6 * facts.count_lora_params(params) * num_tokens  # the weights' gradient, too
    head = 4 * facts.vocab_size * facts.hidden_size * labels
    num_delta = facts.layer_types.count("linear_attention")
    q_size = facts.num_heads * facts.head_dim
    attention = (facts.num_layers - num_delta) * 6 * q_size * sum(n * n for n in lengths)
    delta = 0
    if facts.delta is not None:
        state_size = facts.delta.value_size * facts.delta.key_head_dim
        delta = num_delta * 18 * state_size * num_tokens
    return count_linear(facts, num_tokens) + adapters + head + attention + delta
