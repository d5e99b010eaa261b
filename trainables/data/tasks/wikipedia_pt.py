"""Portuguese Wikipedia: summarise an article of 500 to 4,000 tokens, in Portuguese."""

from trainables.config import TaskOptions
from trainables.data.rows import Scoring
from trainables.data.tasks.summaries import SummaryTask

PROMPTS = {"chat": "Resuma o texto a seguir em português, em poucas frases.\n\n{text}"}
BUILD = "python -m tests.benchmarks.wikipedia_pt_builder --out DIR --endpoint URL --writer MODEL"


def wikipedia_pt(options: TaskOptions) -> SummaryTask:
    """Articles with summaries that a larger model wrote; no public dataset has them."""
    return SummaryTask(
        options=options,
        name="wikipedia_pt",
        dataset="rows that tests/benchmarks/wikipedia_pt_builder.py made",
        columns=("text", "summary"),
        prompt_columns=("text",),
        prompts=PROMPTS,
        scoring=Scoring(kind="summarize", language="portuguese"),
        no_data_fix=f"pass --data DIR, or a file with text and summary; a checkout has {BUILD}",
    )
