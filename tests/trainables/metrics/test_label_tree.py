"""Trees of labels: every beginning once, every label's likelihood the sum over its own tokens."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from trainables.metrics import label_tree
from trainables.metrics.label_tree import LabelTree, grow_trees

CPU = torch.device("cpu")
NUM_WORDS = 6
LABELS = st.lists(
    st.lists(st.integers(0, NUM_WORDS - 1), min_size=1, max_size=8), min_size=1, max_size=30
)


def read_prefixes(tree: LabelTree) -> list[tuple[int, ...]]:
    """What each node sees of the tree, in order: the tokens up to its own."""
    return [tuple(tree.tokens_N[is_seen].tolist()) for is_seen in tree.is_seen_NN]


@given(labels=LABELS, max_nodes=st.integers(1, 40))
@example(labels=[[1], [2]], max_nodes=1)
@example(labels=[[1, 0], [1, 2, 0], [1, 2, 3, 0], [1, 2, 0]], max_nodes=40)
def test_every_beginning_of_a_label_is_one_node(labels: list[list[int]], max_nodes: int) -> None:
    trees = grow_trees(labels, CPU, max_nodes)
    assert sorted(index for tree in trees for index in tree.labels) == list(range(len(labels)))
    for tree in trees:
        own = [labels[index] for index in tree.labels]
        prefixes = read_prefixes(tree)
        assert len(set(prefixes)) == len(prefixes)
        assert set(prefixes) == {tuple(label[:n]) for label in own for n in range(1, len(label))}
        assert tree.depths_N.tolist() == [len(prefix) - 1 for prefix in prefixes]
        assert len(prefixes) <= max_nodes or len(own) == 1
    # No tree could have taken the first label of the next one.
    for tree, after in pairwise(trees):
        more = [*(labels[index] for index in tree.labels), labels[after.labels[0]]]
        assert len({tuple(label[:n]) for label in more for n in range(1, len(label))}) > max_nodes


@given(labels=LABELS, max_nodes=st.integers(1, 40), seed=st.integers(0, 99))
def test_likelihood_is_the_sum_over_a_labels_own_tokens(
    labels: list[list[int]], max_nodes: int, seed: int
) -> None:
    """Logits here are drawn for each prompt and each beginning of a label."""
    draw = torch.Generator().manual_seed(seed)
    logits_of: dict[tuple[int, ...], torch.Tensor] = {}
    for tree in grow_trees(labels, CPU, max_nodes):
        prefixes = [(), *read_prefixes(tree)]
        for prefix in prefixes:
            logits_of.setdefault(prefix, torch.randn(3, NUM_WORDS, generator=draw) * 5)
        logits = torch.stack([logits_of[prefix] for prefix in prefixes], dim=1)
        found = tree.compute_log_probs(logits, lambda hidden: hidden)
        for column, index in enumerate(tree.labels):
            label = labels[index]
            terms = [
                logits_of[tuple(label[:n])].double().log_softmax(dim=1)[:, token]
                for n, token in enumerate(label)
            ]
            torch.testing.assert_close(found[:, column], sum(terms), rtol=1e-5, atol=1e-6)


def test_151_labels_take_few_passes_and_a_thousand_long_ones_bounded_ones() -> None:
    """As many passes as trees: 151 labels of 5 tokens share their beginnings and their ends."""
    labels = [[n % 10, n % 37, n, 200 + n % 3, 1] for n in range(151)]
    trees = grow_trees(labels, CPU)
    assert len(trees) == 2 and sum(len(tree.tokens_N) for tree in trees) <= 10 + 3 * 151 + 3
    labels = [[n % 7, *range(n, n + 6), 1] for n in range(1000)]
    trees = grow_trees(labels, CPU)
    assert all(len(tree.tokens_N) <= label_tree.MAX_NODES for tree in trees)
    assert len(trees) <= 1 + 1000 * 7 / (label_tree.MAX_NODES - 7)


@pytest.mark.parametrize("share", [1, 4, 100])
def test_the_head_sees_few_prompts_at_a_time(share: int) -> None:
    (tree,) = grow_trees([[1, 2, 0], [1, 3, 0]], CPU)
    hidden = torch.randn(9, 4, NUM_WORDS)
    shapes = []

    def head(some: torch.Tensor) -> torch.Tensor:
        shapes.append(len(some))
        return some

    found = tree.compute_log_probs(hidden, head, head_rows=share * 4)
    assert sum(shapes) == 9 and max(shapes) == min(share, 9)
    assert torch.equal(found, tree.compute_log_probs(hidden, head))
