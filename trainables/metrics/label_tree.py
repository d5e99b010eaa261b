"""Labels as prefix trees: a beginning that several labels share is computed once for all of them.

A tree's nodes stand behind the prompt, one token each. A node sees the prompt, its ancestors and
itself, at the position that it has in its labels, so it computes what it would in each of them
(tree attention: arXiv 2305.09781, section 4.2). The last token of a label is predicted only and is
no node.

Shapes: S prompts, N nodes of a tree, T positions, L labels of a tree, J tokens of the longest,
V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_NODES = 256
"""Nodes that are read together behind every prompt, where a mask as wide as they and the prompt
goes with them."""
HEAD_ROWS = 2048
"""Nodes whose logits are held together: 2048 * 151936 float32 logits are 1.2 GiB."""


def _logsumexp(logits: Tensor) -> Tensor:
    return logits.float().logsumexp(dim=-1)


@dataclass(frozen=True)
class LabelTree:
    """Some of the labels, and what must be read behind a prompt to know their likelihoods."""

    labels: list[int]
    """Which of all labels these are."""
    tokens_N: Tensor
    depths_N: Tensor
    """Tokens between the prompt and the node."""
    is_seen_NN: Tensor
    """Which nodes (columns) each node (row) sees."""
    nodes_LJ: Tensor
    """What predicts each token of a label: 0 is the prompt, n + 1 the node n."""
    targets_LJ: Tensor
    """The labels' tokens, -1 behind the end of each."""

    def find_visible(self, lengths_S: Tensor, num_prompt: int, num_positions: int) -> Tensor:
        """Which positions each node sees, bool (S, N, T).

        Args:
            lengths_S: tokens of each prompt.
            num_prompt: positions that prompts take, padding included; the nodes take the next.
            num_positions: T.
        """
        position_T = torch.arange(num_positions, device=lengths_S.device)
        is_prompt_ST = position_T < lengths_S[:, None]
        is_node_NT = torch.zeros(
            len(self.tokens_N), num_positions, dtype=torch.bool, device=lengths_S.device
        )
        is_node_NT[:, num_prompt : num_prompt + len(self.tokens_N)] = self.is_seen_NN
        return is_prompt_ST[:, None] | is_node_NT

    def compute_log_probs(
        self,
        hidden: Tensor,
        head: Callable[[Tensor], Tensor],
        logsumexp: Callable[[Tensor], Tensor] = _logsumexp,
        head_rows: int = HEAD_ROWS,
    ) -> Tensor:
        """float64 log-probability (S, L) of each label.

        Args:
            hidden: outputs (S, 1 + N, features) at the prompts' last tokens and at the nodes.
            head: gives their logits.
            logsumexp: float32 over each node's logits.
            head_rows: nodes whose logits are held together.
        """
        share = max(1, head_rows // hidden.shape[1])
        chunks = map(head, torch.split(hidden, share))
        return torch.cat([self._sum_paths(logits, logsumexp(logits)) for logits in chunks])

    def _sum_paths(self, logits: Tensor, sums_SN: Tensor) -> Tensor:
        chosen_SLJ = logits[:, self.nodes_LJ, self.targets_LJ.clamp(min=0)].double()
        log_probs_SLJ = chosen_SLJ - sums_SN[:, self.nodes_LJ].double()
        return torch.where(self.targets_LJ >= 0, log_probs_SLJ, 0.0).sum(dim=-1)


def grow_trees(
    labels: Sequence[list[int]],
    device: torch.device,
    max_nodes: int = MAX_NODES,
    *,
    has_branches: bool = True,
) -> list[LabelTree]:
    """As few trees as hold all labels with at most max_nodes nodes each; a longer label has one.

    Args:
        labels: at least one token each.
        has_branches: False gives each label a tree of its own, for layers that are recurrent.
    """
    parts: list[list[int]] = []
    nodes: set[tuple[int, ...]] = set()
    for index in sorted(range(len(labels)), key=labels.__getitem__):  # neighbours share most
        prefixes = {tuple(labels[index][:end]) for end in range(1, len(labels[index]))}
        if not (parts and has_branches) or len(nodes) + len(prefixes - nodes) > max_nodes:
            parts.append([])
            nodes = set()
        parts[-1].append(index)
        nodes |= prefixes
    return [_grow([tuple(labels[index]) for index in part], part, device) for part in parts]


def _grow(labels: Sequence[tuple[int, ...]], part: list[int], device: torch.device) -> LabelTree:
    number_of: dict[tuple[int, ...], int] = {}
    for label in labels:
        for end in range(len(label)):
            number_of.setdefault(label[:end], len(number_of))  # parents come before their children
    _, *prefixes = number_of
    is_seen_NN = torch.zeros(len(prefixes), len(prefixes), dtype=torch.bool)
    pairs = [(prefix, prefix[:end]) for prefix in prefixes for end in range(1, len(prefix) + 1)]
    rows, columns = ([number_of[pair[side]] - 1 for pair in pairs] for side in (0, 1))
    is_seen_NN[rows, columns] = True
    longest = max(map(len, labels))
    nodes = [[number_of[label[:end]] for end in range(len(label))] for label in labels]
    nodes = [path + [0] * (longest - len(path)) for path in nodes]
    targets = [[*label, *[-1] * (longest - len(label))] for label in labels]
    return LabelTree(
        labels=part,
        tokens_N=torch.tensor([prefix[-1] for prefix in prefixes], dtype=torch.int64).to(device),
        depths_N=torch.tensor([len(p) - 1 for p in prefixes], dtype=torch.int64).to(device),
        is_seen_NN=is_seen_NN.to(device),
        nodes_LJ=torch.tensor(nodes).to(device),
        targets_LJ=torch.tensor(targets).to(device),
    )
