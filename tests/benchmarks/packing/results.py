"""The bench's result files, and python -m tests.benchmarks.packing.results FILES: their table."""

import json
import subprocess
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from trainables.errors import SweepAborted

SOLO = "TRL solo"
"""Name of the row that all others are compared with, at the same batch size."""

HEADER = (
    "shape",
    "trials",
    "batch",
    "ranks",
    "trial-steps/s",
    "in the first round",
    "of TRL solo",
    "real tokens/s",
    "of the ceiling",
    "with all products",
    "real",
    "peak GiB (predicted)",
    "first step",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement."""

    name: str
    num_trials: int
    """Trials that train at once."""
    batch_size: int
    """Rows of one optimizer step of a trial."""
    ranks: str
    """Ranks of the trials."""
    settings: str
    """How they were trained, in words."""
    trial_steps_per_s: float
    """Optimizer steps a second, summed over the trials."""
    first_round_steps_per_s: float | None
    """That over a pack's first round, in which the shapes of most passes are new; None for
    solo trials."""
    real_tokens_per_s: float
    """Tokens that are not padding, summed over the trials."""
    tflops: float
    """4 x parameters of the linear layers x real tokens a second, in TFLOP/s."""
    products_tflops: float | None = None
    """All that products.count_products counts: those and adapters, head, attention, Gated DeltaNet;
    None in files that are older."""
    timed_s: float
    """Seconds that were timed, without warm-up."""
    real_frac: float | None
    """Real tokens over computed tokens; None where it is not known."""
    predicted_gib: float | None
    """Peak memory that was predicted before; None for what predicts nothing."""
    peak_gib: float
    """Most memory that torch held in tensors, summed over the processes."""
    reserved_gib: float
    """Most memory that torch took from the GPU, summed over the processes."""
    startup_s: float
    """From the start of the process to the end of its first step, compiling included."""

    @property
    def key(self) -> tuple[str, int, int, str, str]:
        """What a second measurement of the same thing shares with the first."""
        return (self.name, self.num_trials, self.batch_size, self.ranks, self.settings)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The card that was measured."""

    name: str
    torch: str
    ceiling_tflops: float
    """Its rate of large bf16 matrix products on random values, in TFLOP/s."""


@dataclass(kw_only=True)
class Results:
    """Rows that were measured on one card, at one commit, with one set of settings."""

    gpu: Gpu
    commit: str | None
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """Why a row is missing, by its name."""

    def add(self, row: Row) -> None:
        """Take a row, in the place of an earlier measurement of the same."""
        self.rows = [other for other in self.rows if other.key != row.key] + [row]

    def compare_with_solo(self, row: Row) -> float | None:
        """The row's trial-steps over TRL's at the same batch size."""
        for other in self.rows:
            if other.name == SOLO and other.batch_size == row.batch_size:
                return row.trial_steps_per_s / other.trial_steps_per_s
        return None

    def compute_products_frac(self, row: Row) -> float | None:
        """The rate of all its products over the card's ceiling."""
        rate = row.products_tflops
        return None if rate is None else rate / self.gpu.ceiling_tflops

    def format_row(self, row: Row) -> str:
        first, predicted = row.first_round_steps_per_s, row.predicted_gib
        return (
            f"{row.name}, {row.settings}; {row.num_trials} at once, ranks {row.ranks}, batch "
            f"{row.batch_size}: {row.trial_steps_per_s:.2f} trial-steps/s"
            f"{_format_known(self.compare_with_solo(row), ' ({:.1f}x)')}"
            f"{_format_known(first, ', {:.2f} in the first round')}, "
            f"{row.real_tokens_per_s:,.0f} tokens/s, "
            f"{row.tflops / self.gpu.ceiling_tflops:.1%} of the ceiling"
            f"{_format_known(self.compute_products_frac(row), ' ({:.1%} with all products)')}, "
            f"{row.peak_gib:.2f} GiB{_format_known(predicted, ' ({:.2f} predicted)')}, "
            f"first step after {row.startup_s:.0f} s"
        )

    def write(self, path: Path) -> None:
        content = asdict(self)
        for shown, row in zip(content["rows"], self.rows, strict=True):
            shown["ceiling_frac"] = row.tflops / self.gpu.ceiling_tflops
            shown["products_frac"] = self.compute_products_frac(row)
            shown["times_solo"] = self.compare_with_solo(row)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    content = json.loads(path.read_text(encoding="utf-8"))
    derived = ("ceiling_frac", "products_frac", "times_solo")
    rows = [{k: v for k, v in row.items() if k not in derived} for row in content.pop("rows")]
    gpu = Gpu(**content.pop("gpu"))
    return Results(gpu=gpu, rows=[Row(**row) for row in rows], **content)


def open_results(path: Path, new: Results) -> Results:
    """The results that the file has, to which rows may be added, or the new ones.

    Raises:
        SweepAborted: the file was measured on another card, commit or with other settings.
    """
    if not path.exists():
        return new
    old = read_results(path)
    for what, was, now in (
        ("GPU", (old.gpu.name, old.gpu.torch), (new.gpu.name, new.gpu.torch)),
        ("commit", old.commit, new.commit),
        ("settings", old.settings, new.settings),
    ):
        if was != now:
            raise SweepAborted(
                f"{path} has rows of another {what}: {was}, not {now}",
                "name another file with --out",
            )
    return old


def format_table(results: list[Results]) -> str:
    """All rows as one Markdown table, each file's in the order of batch size and speed."""
    lines = [HEADER, ("---",) * len(HEADER)]
    for one in results:
        rows = sorted(one.rows, key=lambda row: (row.batch_size, row.trial_steps_per_s))
        lines += [_list_cells(one, row) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _list_cells(results: Results, row: Row) -> tuple[str, ...]:
    return (
        str(results.settings["model_config"]),
        f"{row.name}, {row.settings}" if row.name != "pack" else f"pack of {row.num_trials}",
        str(row.batch_size),
        row.ranks,
        f"{row.trial_steps_per_s:.3g}",
        _format_known(row.first_round_steps_per_s, "{:.3g}"),
        _format_known(results.compare_with_solo(row), "{:.1f}x"),
        f"{row.real_tokens_per_s:,.0f}",
        f"{row.tflops / results.gpu.ceiling_tflops:.0%}",
        _format_known(results.compute_products_frac(row), "{:.0%}"),
        _format_known(row.real_frac, "{:.0%}"),
        f"{row.peak_gib:.1f}{_format_known(row.predicted_gib, ' ({:.1f})')}",
        f"{row.startup_s:.0f} s",
    )


def _format_known(value: float | None, text: str) -> str:
    return "" if value is None else text.format(value)


def read_commit() -> str | None:
    """The checkout's commit; None outside git."""
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return revision.stdout.strip() if revision.returncode == 0 else None


def describe_args(args: Any, left_out: Collection[str] = ("out",)) -> dict[str, Any]:
    """A command's settings for its file; a folder by its name alone."""
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in left_out
    }


@dataclass(frozen=True, kw_only=True)
class TableArgs:
    """Prints the Markdown table of result files."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files that the bench wrote with --out."""


if __name__ == "__main__":
    chosen = tyro.cli(TableArgs, prog="python -m tests.benchmarks.packing.results")
    print(format_table([read_results(path) for path in chosen.files]))
