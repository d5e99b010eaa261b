"""Cards' scripts as programs: what they answer to the rows that a run was scored on."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.finals import predictions
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import select_fixed_slice

PROGRAM = """
import io, json, os, sys
from contextlib import redirect_stdout

sys.modules.update(dict.fromkeys(sys.argv[2:]))  # as if these were not installed
for job in json.load(open(sys.argv[1])):
    os.chdir(job["folder"])
    script, shown = {"__name__": "__main__"}, io.StringIO()
    with redirect_stdout(shown):
        exec(job["code"], script)
    answers = [script["answer"](*row) for row in job["rows"]]
    told = {"shown": shown.getvalue(), "answers": answers}
    if job["batch_size"]:
        exec(job["batch_code"], script)
        told["batched"] = script["answer_batches"](job["rows"], job["batch_size"])
    print(json.dumps(told), flush=True)
"""
BATCH_CODE = """
def answer_batches(rows, size):
    prompts = [encode_prompt(*row) for row in rows]
    answers = []
    for first in range(0, len(prompts), size):
        batch = prompts[first : first + size]
        with torch.inference_mode(), torch.autocast(
            device, torch.bfloat16, enabled=model.dtype == torch.bfloat16
        ):
            answers += read_labels(batch) if "labels" in globals() else write(batch)
    return answers


def pad(rows, side):
    longest = max(map(len, rows))
    fill = [[0] * (longest - len(row)) for row in rows]
    ids = [f + row if side == "left" else row + f for row, f in zip(rows, fill)]
    mask = [[0 * t for t in f] + [1] * len(row) for row, f in zip(rows, fill)]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def write(batch):
    ids, mask = pad(batch, "left")
    outputs = model.generate(input_ids=ids, attention_mask=mask)[:, ids.shape[1] :].tolist()
    stops = model.generation_config.eos_token_id
    ends = [next((n for n, t in enumerate(o) if t in stops), len(o)) for o in outputs]
    return [
        tokenizer.decode(o[:end], skip_special_tokens=True).strip() for o, end in zip(outputs, ends)
    ]


def read_labels(batch):
    end = model.generation_config.eos_token_id[0]
    targets = [encode(label) + [end] for label in labels]
    log_probs = []
    for target in targets:
        ids, _ = pad([prompt + target for prompt in batch], "right")
        logits = model(input_ids=ids).logits.float().log_softmax(dim=-1)
        log_probs.append(torch.stack([
            logits[n, len(p) - 1 :][range(len(target)), target].double().sum()
            for n, p in enumerate(batch)
        ]))
    return [dict(zip(labels, r)) for r in torch.stack(log_probs, dim=1).softmax(dim=1).tolist()]
"""


@dataclass(frozen=True, kw_only=True)
class CardAnswers:
    """What one card's script says to the test rows, beside what was scored."""

    scored: list[str]
    said: list[str]
    """Of labels, the likeliest."""
    batched: list[str]
    """By the same model, read in batches; [] if that was not asked for."""
    probabilities: list[dict[str, float]]
    """Of labels; [] of texts."""
    shown: str
    """What the script prints itself."""

    @property
    def num_equal(self) -> int:
        """Rows whose answers are those that were scored, to the letter."""
        return sum(a == b for a, b in zip(self.scored, self.said, strict=True))

    @property
    def num_equal_batched(self) -> int:
        """Rows to which the script and the batches say the same."""
        return sum(a == b for a, b in zip(self.said, self.batched, strict=True))


def run_cards(
    runs: Sequence[Path], folder: Path, batch_size: int = 0, without: Sequence[str] = ()
) -> list[CardAnswers]:
    """Each run's script, one after the other in a process of their own, each in its best/.

    Args:
        folder: for the process's input.
        batch_size: of the answers in batches; 0 for none.
        without: packages that cannot be imported there.
    """
    jobs = [
        {
            "folder": str(run / "best"),
            "code": _read_script(run / "best"),
            "batch_code": BATCH_CODE,
            "batch_size": batch_size,
            "rows": _read_columns(run),
        }
        for run in runs
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder / "jobs.json", *without],
        env={"OMP_NUM_THREADS": "1", **os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    results = map(json.loads, ended.stdout.splitlines())
    return [_make_answers(run, told) for run, told in zip(runs, results, strict=True)]


def _make_answers(run: Path, told: dict[str, Any]) -> CardAnswers:
    answers, batched = told["answers"], told.get("batched", [])
    probabilities = answers if isinstance(answers[0], dict) else []
    answers, batched = (
        [max(a, key=a.__getitem__) if isinstance(a, dict) else a for a in some]
        for some in (answers, batched)
    )
    return CardAnswers(
        scored=[row.prediction for row in predictions.read(run / "best")],
        said=answers,
        batched=batched,
        probabilities=probabilities,
        shown=told["shown"],
    )


def _read_script(best: Path) -> str:
    code = re.search(r"^```python\n(.*?)^```$", (best / "README.md").read_text(), re.M | re.S)
    assert code is not None
    return code[1]


def _read_columns(run: Path) -> list[list[Any]]:
    """The column that the prompt names and the earlier turns, by test row, as a user has them."""
    splits = read_rows(run / "rows")
    before, _, after = splits.prompt_template.partition(f"{{{splits.source}}}")
    rows = []
    for row in select_fixed_slice(splits.test, len(splits.test)):
        text = row.prompt.removeprefix(before).removesuffix(after).replace("\n", "\r\n")
        turns = [{"role": m.role, "content": f" {m.content}\n"} for m in row.history]
        rows.append([{splits.source: f"  {text}\r\n"}, turns])
    return rows
