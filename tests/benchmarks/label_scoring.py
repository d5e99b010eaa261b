"""Seconds of scoring rows in a pack over 3 and over 151 labels.

python -m tests.benchmarks.label_scoring MODEL_DIR [ROWS [SLOTS]] prints a JSON line a round; the
first round also captures and compiles.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.data.rows import Row
from trainables.data.tokens import encode_rows, encode_targets
from trainables.models.base_model import load_tokenizer
from trainables.packing.evaluation.classify import label_log_probs
from trainables.packing.evaluation.slot_decoder import SlotDecoder
from trainables.packing.service.loading import new_pack
from trainables.packing.sizing.capacity import Capacity

WORDS = (
    *("account", "balance", "transfer", "money", "card", "lost", "book", "flight", "hotel"),
    *("cancel", "weather", "alarm", "timer", "music", "play", "recipe", "translate", "calendar"),
    *("reminder", "distance", "traffic", "exchange", "rate", "payday", "insurance"),
)
EVAL_TOKENS = 1 << 19


def main(model: str, num_rows: int, num_slots: int) -> None:
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
    pack = new_pack(settings, capacity)
    params = Hyperparameters(lora_rank=8, lora_alpha=8, learning_rate=1e-3)
    for slot in range(num_slots):
        trial = TrialConfig(trial_id=str(slot), params=params, settings=settings, folder=Path())
        pack.join(slot, trial, examples)
    decoder = SlotDecoder.of(pack.model, list(range(num_slots)))
    for _ in range(3):
        seconds = {}
        for num_labels in (3, 151):
            targets = encode_targets(tokenizer, labels[:num_labels])
            since_s = time.perf_counter()
            with torch.inference_mode():
                label_log_probs(decoder, prompts, targets, EVAL_TOKENS)
            seconds[num_labels] = round(time.perf_counter() - since_s, 4)
        ratio = round(seconds[151] / seconds[3], 2)
        print(json.dumps({"slots": num_slots, "rows": num_rows, "s": seconds, "ratio": ratio}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.label_scoring")
    parser.add_argument("model", help="folder of a Qwen model")
    parser.add_argument("num_rows", type=int, nargs="?", default=1000)
    parser.add_argument("num_slots", type=int, nargs="?", default=1)
    main(**vars(parser.parse_args()))
