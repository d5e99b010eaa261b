"""Triton's kernels against plain torch: compiled on a GPU, elsewhere interpreted by Triton.

Also, on a GPU only, a fast pack against a plain one.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch._dynamo.utils

from tests.trainables.hybrid_model import save_hybrid
from tests.trainables.packing.small_packs import (
    largest_relative,
    longer,
    losses,
    run_pack,
    trial_of,
)
from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.tokens import Example
from trainables.metrics.label_tree import grow_trees
from trainables.models.base_model import load_base, load_tokenizer
from trainables.packing.compute import segments
from trainables.packing.compute.optimizer import PackedAdamW, SlotUpdate
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.packed_batch import (
    MicroBatch,
    PackedInputs,
    pack_batch,
    shape_of,
    unpack_inputs,
)

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []

# Triton 3.8 interprets bfloat16 wrongly: sums are cut off, and products take its bits for integers.
DTYPES = [(torch.float32, 1e-6), pytest.param(torch.bfloat16, 5e-3, marks=pytest.mark.gpu)]
SLOTS, MODULES, RANK, FEATURES = 4, 2, 24, 160
ROWS = [Example.from_ids(list(range(1, length)), [1, 2]) for length in (70, 100, 33, 5)]
MICRO_BATCHES = [
    MicroBatch(0, ROWS[:2], 0, 7, 3, 0.3, 1.0),
    MicroBatch(2, ROWS[2:3], 0, 8, 3, 0.0, 1.0),
    MicroBatch(3, ROWS[3:], 2, 9, 3, 0.5, 1.0),
]


def pass_on(device: str) -> PackedInputs:
    packed = pack_batch(MICRO_BATCHES, shape_of(MICRO_BATCHES, SLOTS, "recurring"))
    return unpack_inputs(torch.from_numpy(packed.numbers).to(device), packed.shape)


@pytest.mark.parametrize(("dtype", "near"), DTYPES)
@pytest.mark.parametrize("is_dropping", [False, True])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_kernels_give_the_padded_products(
    dtype: torch.dtype, near: float, is_dropping: bool, is_transposed: bool
) -> None:
    from trainables.packing.compute.kernels import segment_products  # needs Triton

    torch.manual_seed(0)
    cpu, gpu = pass_on("cpu"), pass_on(DEVICE)
    num_tokens, num_real = len(cpu.ids_N), int(cpu.segments.bounds_K2.max())
    keys_M2 = torch.tensor([[123456789, -987654321], [5, 6]], dtype=torch.int32)
    scaling_K = torch.rand(SLOTS, 7)[:, 3]
    x_NF = torch.randn(num_tokens, FEATURES).to(dtype)
    y_NF = torch.randn(num_tokens, 2 * FEATURES).to(dtype)
    inner_MNR = torch.randn(MODULES, num_tokens, RANK).to(dtype)
    weights = torch.randn(SLOTS, MODULES, RANK, FEATURES)
    if is_transposed:
        weights = weights.mT.contiguous().mT
    found = []
    runs = ((segments, cpu, "cpu", torch.float32), (segment_products, gpu, DEVICE, dtype))
    for products, batch, device, exact in runs:
        dropout = batch.dropout if is_dropping else None
        extras = (scaling_K.to(device), dropout, keys_M2.to(device))
        x, inner = x_NF.to(device, exact), inner_MNR.to(device, exact)
        y, grads = y_NF.to(device, exact, copy=True), torch.ones_like(weights, device=device)
        own = torch.empty_like(weights, device=device).copy_(weights)
        shrunk = products.lora_shrink(x, own, batch.segments, *extras)
        products.lora_expand(y[:, FEATURES:], inner, own, batch.segments, *extras)
        products.lora_weight_grad_(grads, inner, x, batch.segments, *extras)
        made = (shrunk[:, :num_real], y[:num_real], grads)
        found.append([tensor.float().cpu() for tensor in made])
    for expected, one in zip(*found, strict=True):
        assert float((one - expected).norm() / expected.norm()) < near


@pytest.mark.parametrize(("num_heads", "head_dim"), [((16, 8), 128), ((14, 2), 64), ((8, 2), 256)])
@pytest.mark.parametrize("row_positions", [(0, 1, 63, 64, 65, 128, 150, 198, 199), (150,)])
def test_a_token_attends_to_its_row_as_in_torch(
    row_positions: tuple[int, ...], num_heads: tuple[int, int], head_dim: int
) -> None:
    """Rows at positions of their own, and nine slots that share one row of the batch."""
    from trainables.packing.compute.kernels.token_attention import token_attention  # needs Triton

    rows, positions = 9, 200
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32  # see above
    q = torch.randn(rows, num_heads[0], head_dim, device=DEVICE, dtype=dtype)
    shape = (rows, num_heads[1], positions, head_dim)
    keys, values = (torch.randn(shape, device=DEVICE, dtype=dtype) for _ in range(2))
    positions_B = torch.tensor(row_positions, device=DEVICE).expand(rows)
    found = token_attention(q, keys, values, positions_B)
    is_seen = torch.arange(positions, device=DEVICE) <= positions_B[:, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        q[:, :, None].float(),
        keys.float(),
        values.float(),
        attn_mask=is_seen[:, None, None],
        enable_gqa=True,
    )
    error = (found.float() - expected[:, :, 0]).norm() / expected.norm()
    assert float(error) < 5e-3


@pytest.mark.parametrize(
    ("num_heads", "head_dim"), [((6, 2), 64), ((2, 2), 128), ((14, 2), 20), ((4, 1), 256)]
)
def test_a_tree_attends_to_its_prompts_and_ancestors_as_in_torch(
    num_heads: tuple[int, int], head_dim: int
) -> None:
    """Some rows of each slot's cache, prompts of one to several blocks, chains beside wide forks;
    the values are part of a wider matrix."""
    from trainables.packing.compute.kernels.tree_attention import tree_attention  # needs Triton

    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32  # see above
    labels = [[n % 3, *range(n, n + 1 + n % 9)] for n in range(12)] + [list(range(70))]
    (tree,) = grow_trees(labels, torch.device(DEVICE), 1000)
    num_nodes, lengths_S = len(tree.tokens_N), torch.tensor([1, 64, 70], device=DEVICE)
    cache = torch.randn(2, 2, 5, num_heads[1], 80, head_dim, device=DEVICE, dtype=dtype)
    keys, values = cache[0][:, 1:4], cache[1][:, 1:4]
    q, k, v = (
        torch.randn(6 * num_nodes, number + 1, head_dim, device=DEVICE, dtype=dtype)[:, :number]
        for number in (num_heads[0], *[num_heads[1]] * 2)
    )
    found = tree_attention(q, k.contiguous(), v, (keys, values), lengths_S, tree.is_seen_NN)
    keys, values = (
        torch.cat((old.flatten(0, 1), new.unflatten(0, (6, -1)).transpose(1, 2)), dim=2).float()
        for old, new in ((keys, k), (values, v))
    )
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.unflatten(0, (6, -1)).transpose(1, 2).float(),
        keys,
        values,
        attn_mask=tree.find_visible(lengths_S, 80, 80 + num_nodes).repeat(2, 1, 1)[:, None],
        enable_gqa=True,
    )
    expected = expected.transpose(1, 2).flatten(0, 1)
    near = 3e-2 if DEVICE == "cuda" else 1e-5
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=near)


@pytest.mark.parametrize("num_words", [1, 2048, 5000])
def test_logsumexp_is_that_of_torch(num_words: int) -> None:
    from trainables.packing.compute.kernels.logsumexp import logsumexp  # needs Triton

    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32  # see above
    logits = torch.randn(3, 4, num_words, device=DEVICE, dtype=dtype) * 30 - 100
    torch.testing.assert_close(logsumexp(logits), logits.float().logsumexp(dim=-1))


def test_fused_update_is_that_of_torch() -> None:
    """Of the slots that are due: one gathers its gradient, one is not finite in round 2."""
    rates, decays, norms = (1e-1, 3e-3, 1e-2, 1e-3), (0.0, 0.3, 0.1, 0.0), (1.0, 0.2, 1e9, 1.0)
    params = torch.randn(4, 3000, device=DEVICE)
    ours, grads = params.clone(), torch.zeros_like(params)
    packed = PackedAdamW(ours, grads, is_fused=True)
    theirs = [torch.nn.Parameter(row.clone()) for row in params]
    optimizers = [
        torch.optim.AdamW([row], lr=rate, weight_decay=decay, foreach=False)
        for row, rate, decay in zip(theirs, rates, decays, strict=True)
    ]
    for step in (1, 2, 3):
        grads[:3] = torch.randn(3, 3000, device=DEVICE)
        grads[3] += 1.0
        losses = torch.zeros(4, device=DEVICE)
        losses[2] = torch.inf if step == 2 else 0.0
        for row, grad, norm, optimizer in zip(
            theirs[: 2 if step == 2 else 3], grads, norms, optimizers, strict=False
        ):
            row.grad = grad.clone()
            torch.nn.utils.clip_grad_norm_([row], norm)
            optimizer.step()
        updates = [
            SlotUpdate(step=step, learning_rate=rate, weight_decay=decay, max_grad_norm=norm)
            for rate, decay, norm in zip(rates, decays, norms, strict=True)
        ]
        if step == 3:
            updates[2] = dataclasses.replace(updates[2], step=2)
        packed.step([*updates[:3], None], losses)
    assert (grads[:3] == 0).all() and (grads[3] == 3).all()
    assert torch.equal(ours[3], params[3]) and not packed.exp_avg_sq_KP[3].any()
    expected = torch.stack([row.detach() for row in theirs])
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.parametrize("is_hybrid", [False, True])
def test_fast_pack_follows_a_plain_one(
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
    tmp_path: Path,
    is_hybrid: bool,
) -> None:
    """In bfloat16, with a join, a departure and passes that vary; no compiler takes part."""
    if is_hybrid:
        pytest.importorskip("fla", reason="needs fla-core: pip install '.[hybrid]'")
        hybrid = save_hybrid(tmp_path / "hybrid", load_tokenizer(settings.model))
        settings = dataclasses.replace(settings, model=hybrid)
    torch._dynamo.utils.counters.clear()
    settings = longer(settings, 12, compute_dtype="bfloat16", batch_size=8)
    found = []
    for is_fast in (False, True):
        base = load_base(settings.model, settings.compute_dtype)
        pack = Pack(base, 3, 16, 700, is_fast=is_fast)
        for slot in (0, 2):
            pack.join(slot, trial_of(f"t{slot}", params, settings), examples)
        plan = {
            4: lambda pack: pack.join(1, trial_of("late", params, settings), examples),
            7: lambda pack: pack.leave(0),
        }
        results = run_pack(pack, plan)
        found.append([loss for name in ("t2", "late") for loss in losses(results[name])])
    assert largest_relative(list(zip(*found, strict=True))) < 2e-2
    assert not torch._dynamo.utils.counters["frames"]
