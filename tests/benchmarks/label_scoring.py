"""Seconds of scoring rows in a pack over 3 and over 151 labels.

python -m tests.benchmarks.label_scoring MODEL_DIR [ROWS [SLOTS]] [--profile] prints a JSON line a
round; the first round also compiles. --profile adds a line for 3 and for 151 labels: the seconds of
each stage, each waited for; the GPU's seconds by kernel while nothing is waited for; and how far
the likelihoods of some rows lie from those of each label read alone.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tests.benchmarks.packing.job import synchronize
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.data.rows import Row
from trainables.data.tokens import Example, encode_rows, encode_targets
from trainables.metrics.label_tree import LabelTree, grow_trees
from trainables.models.base_model import load_tokenizer
from trainables.packing.evaluation.classify import compute_label_log_probs
from trainables.packing.evaluation.generate import pad_right
from trainables.packing.evaluation.slot_decoder import SlotDecoder
from trainables.packing.service.loading import make_pack
from trainables.packing.sizing.capacity import Capacity

WORDS = (
    *("account", "balance", "transfer", "money", "card", "lost", "book", "flight", "hotel"),
    *("cancel", "weather", "alarm", "timer", "music", "play", "recipe", "translate", "calendar"),
    *("reminder", "distance", "traffic", "exchange", "rate", "payday", "insurance"),
)
EVAL_TOKENS = 1 << 19
STAGES = {
    "read": (SlotDecoder, "prefill"),
    "read_tree": (SlotDecoder, "read_tree"),
    "log_probs": (LabelTree, "compute_log_probs"),
}
CHECKED_ROWS = 5


def main(model: str, num_rows: int, num_slots: int, profile: bool) -> None:
    """Time 3 and 151 labels of one to three words, three rounds of each."""
    draw = random.Random(0)
    named = (" ".join(draw.sample(WORDS, draw.choice([1, 2, 2, 3]))) for _ in range(400))
    labels = list(dict.fromkeys(named))[:151]
    asked = "Which intent has this message? "
    rows = [
        Row(
            id=str(n),
            prompt=asked + " ".join(draw.choices(WORDS, k=draw.randint(5, 20))),
            target="",
        )
        for n in range(num_rows)
    ]
    settings = TrainingSettings(
        rows_dir=Path(), model=model, max_steps=1, rungs=(1,), max_length_tokens=256
    )
    tokenizer = load_tokenizer(model)
    examples = encode_rows(tokenizer, rows, 248)
    prompts = [example.prompt_ids for example in examples]
    capacity = Capacity(
        num_slots=num_slots,
        max_rank=16,
        max_tokens=16384,
        eval_tokens=EVAL_TOKENS,
        is_dequantised=True,
        predicted_gib=0.0,
    )
    pack = make_pack(settings, capacity)
    params = Hyperparameters(lora_rank=8, lora_alpha=8, learning_rate=1e-3)
    for slot in range(num_slots):
        trial = TrialConfig(trial_id=str(slot), params=params, settings=settings, folder=Path())
        pack.join(slot, trial, examples)
    decoder = SlotDecoder.from_slots(pack.model, list(range(num_slots)))
    targets = {number: encode_targets(tokenizer, labels[:number]) for number in (3, 151)}
    trees = {number: grow_trees(ids, decoder.device, 9999)[0] for number, ids in targets.items()}
    line = {
        "slots": num_slots,
        "rows": num_rows,
        "prompt_tokens": sum(map(len, prompts)),
        "nodes": {number: len(tree.tokens_N) for number, tree in trees.items()},
    }
    for _ in range(3):
        seconds = {n: time_scoring(decoder, prompts, ids)[0] for n, ids in targets.items()}
        ratio = round(seconds[151] / seconds[3], 2)
        print(json.dumps({**line, "s": seconds, "ratio": ratio}))
    for number, ids in targets.items() if profile else ():
        print(json.dumps({"labels": number, **profile_scoring(decoder, prompts, ids)}))


@torch.inference_mode()
def time_scoring(
    decoder: SlotDecoder, prompts: Sequence[list[int]], labels: Sequence[list[int]]
) -> tuple[float, torch.Tensor]:
    """Seconds, and the likelihoods."""
    since_s = time.perf_counter()
    log_probs_KSL = compute_label_log_probs(decoder, prompts, labels, EVAL_TOKENS)
    return round(time.perf_counter() - since_s, 4), log_probs_KSL


def profile_scoring(
    decoder: SlotDecoder, prompts: Sequence[list[int]], labels: Sequence[list[int]]
) -> dict[str, Any]:
    """Calls and seconds of each stage, the GPU's milliseconds, and the largest difference."""
    stages: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for stage, (owner, name) in STAGES.items():
            timed = time_calls(getattr(owner, name), stages.setdefault(stage, [0, 0.0]))
            stack.enter_context(patch.object(owner, name, timed))
        _, log_probs_KSL = time_scoring(decoder, prompts, labels)
    profile = {"stages": stages, "off": find_difference(decoder, prompts, labels, log_probs_KSL)}
    if torch.cuda.is_available():
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
            time_scoring(decoder, prompts, labels)
        kernels = sorted(recorded.key_averages(), key=lambda one: -one.self_device_time_total)
        profile["gpu_ms"] = sum(one.self_device_time_total for one in kernels) / 1000
        profile["kernels"] = [
            (one.key[:70], one.count, one.self_device_time_total / 1000) for one in kernels[:25]
        ]
    return profile


def time_calls(function: Callable[..., Any], totals: list[float]) -> Callable[..., Any]:
    """The function, which waits for the GPU and adds to its calls and seconds."""

    def timed(*args: Any) -> Any:
        synchronize()
        since_s = time.perf_counter()
        result = function(*args)
        synchronize()
        totals[0] += 1
        totals[1] += time.perf_counter() - since_s
        return result

    return timed


@torch.inference_mode()
def find_difference(
    decoder: SlotDecoder,
    prompts: Sequence[list[int]],
    labels: Sequence[list[int]],
    log_probs_KSL: torch.Tensor,
) -> float:
    """Compares some rows' likelihoods with those of each label read behind its prompt alone."""
    largest = 0.0
    for row, prompt in enumerate(prompts[:CHECKED_ROWS]):
        rows = [Example.from_ids(prompt, label) for label in labels]
        ids_LT, lengths_L = pad_right(rows, decoder.device)
        cache = decoder.make_cache(*ids_LT.shape)
        x_KND = decoder.prefill(ids_LT, lengths_L, cache, max(map(len, labels)))
        x_KLTD = x_KND.unflatten(1, ids_LT.shape)
        for column, label in enumerate(labels):
            at = slice(len(prompt) - 1, len(prompt) - 1 + len(label))
            log_probs_KJV = decoder.logits(x_KLTD[:, column, at]).float().log_softmax(dim=-1)
            ids_J1 = torch.tensor(label, device=decoder.device)[:, None]
            alone_K = log_probs_KJV.take_along_dim(ids_J1[None], dim=2).double().sum(dim=(1, 2))
            off_K = alone_K.cpu() - log_probs_KSL[:, row, column]
            largest = max(largest, float(off_K.abs().max()))
    return largest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.label_scoring")
    parser.add_argument("model", help="folder of a Qwen model")
    parser.add_argument("num_rows", type=int, nargs="?", default=1000)
    parser.add_argument("num_slots", type=int, nargs="?", default=1)
    parser.add_argument("--profile", action="store_true", help="say where the time goes")
    main(**vars(parser.parse_args()))
