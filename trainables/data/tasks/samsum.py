"""SAMSum: summarise a chat (Gliwa et al. 2019, arXiv 1911.12237)."""

from trainables.config import TaskOptions
from trainables.data.rows import Scoring
from trainables.data.tables.hub_tables import REVISION
from trainables.data.tasks.summaries import SummaryTask

REPO = "knkarthick/samsum"
"""Mirror of SAMSum on the Hub; the original, Samsung/samsum, is gone."""
PROMPTS = {
    "chat": "Summarize the following dialogue.\n\n{dialogue}",
    "instruction": (
        "### Instruction:\nSummarize the following dialogue.\n\n"
        "### Input:\n{dialogue}\n\n### Response:"
    ),
}
"""Both are the user's message within the model's chat template, in training and evaluation alike:
a Qwen model ends its answer by that template's end of turn, whatever stands before it."""


def samsum(options: TaskOptions) -> SummaryTask:
    """Chats with summaries, 14,731 / 818 / 819 rows before cleaning."""
    return SummaryTask(
        options=options,
        name="samsum",
        dataset=f"{REPO}@{REVISION}",
        columns=("id", "dialogue", "summary"),
        prompt_columns=("dialogue",),
        prompts=PROMPTS,
        scoring=Scoring(kind="summarize", language="english"),
    )
