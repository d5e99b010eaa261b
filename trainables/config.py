"""TrialConfig and TrialReport: the words that every package shares. Standard library only."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

Schedule = Literal["linear", "cosine"]
ComputeDtype = Literal["bfloat16", "float32"]
BaseType = Literal["nf4", "bf16"]
Kind = Literal["summarize", "generate", "classify", "chat"]
TrainedTurns = Literal["all", "last"]
Language = Literal["english", "turkish", "portuguese"]
Balance = Literal["none", "oversample"]
Data = str | tuple[str, ...] | None
"""Where a task's rows are: files and folders, or a dataset of the Hub; None is its own."""

_PACKAGE = Path(__file__).parent

AUGMENT_NOISE = 0.1
"""EDA's share for sets of 5,000 rows and more; for fewer it names 0.05 (arXiv 1901.11196, table 3).
"""


class FlagGroup(Enum):
    """Under which heading `--help` shows a field that is a flag, in this order."""

    MAIN = "main"
    """First of all, without a heading: the few that most users need."""
    DATA = "data and prompt"
    TRAINING = "training"
    SEARCH = "search"
    SCORING = "finals and scores"
    ENGINE = "engine and hardware"
    OUTPUT = "output and tracking"


_T = TypeVar("_T")
MainFlag = Annotated[_T, FlagGroup.MAIN]
DataFlag = Annotated[_T, FlagGroup.DATA]
TrainingFlag = Annotated[_T, FlagGroup.TRAINING]
SearchFlag = Annotated[_T, FlagGroup.SEARCH]
ScoringFlag = Annotated[_T, FlagGroup.SCORING]
EngineFlag = Annotated[_T, FlagGroup.ENGINE]
OutputFlag = Annotated[_T, FlagGroup.OUTPUT]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score's name and direction, which travel as one value."""

    name: str
    """Key in TrialReport.metrics, e.g. "rougeLsum" (0 to 100) or "accuracy" (0 to 100)."""
    mode: Literal["max", "min"] = "max"
    """Whether more or less is better."""

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The mode as Optuna and W&B name it."""
        return "maximize" if self.mode == "max" else "minimize"

    @property
    def sign(self) -> int:
        """1, or -1 where less is better: of two values times it, the larger is better."""
        return 1 if self.mode == "max" else -1

    def is_better(self, value: float, other: float) -> bool:
        """Whether value beats other strictly."""
        return self.sign * value > self.sign * other

    def choose_best(self, values: Iterable[float]) -> float:
        """The best of at least one value."""
        return max(values, key=lambda value: self.sign * value)


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What a sweep varies: one point of the search space."""

    lora_rank: int
    """Rank of every LoRA product, at least 1."""
    lora_alpha: float
    """Numerator of the LoRA scaling, above 0."""
    lora_dropout: float = 0.0
    """Probability of dropping a LoRA input, in [0, 1)."""
    learning_rate: float
    """Peak learning rate of AdamW, above 0."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) (arXiv 2312.03732) instead of alpha / rank."""
    target_modules: tuple[str, ...] = ("all",)
    """The linear layers that get an adapter: names, which commas may join, or all, attention (what
    mixes tokens), mlp."""

    def __post_init__(self) -> None:
        require(self.lora_rank >= 1, "lora_rank", self.lora_rank, "at least 1")
        require(_is_positive(self.lora_alpha), "lora_alpha", self.lora_alpha, "above 0")
        require(0.0 <= self.lora_dropout < 1.0, "lora_dropout", self.lora_dropout, "in [0, 1)")
        require(_is_positive(self.learning_rate), "learning_rate", self.learning_rate, "above 0")
        names = tuple(name for joined in self.target_modules for name in joined.split(","))
        rule = "one or more names, or all, attention, mlp"
        require(bool(names) and all(names), "target_modules", self.target_modules, rule)
        object.__setattr__(self, "target_modules", names)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a trial trains and is scored: the knobs that all trials of a sweep share."""

    batch_size: TrainingFlag[int] = 8
    """Rows in one optimizer step (the effective batch)."""
    micro_batch_size: TrainingFlag[int] = 8
    """Rows in one forward pass; divides batch_size."""
    max_length_tokens: TrainingFlag[int] = 1024
    """Tokens of prompt and target that a training row may have; longer prompts are cut."""
    schedule: TrainingFlag[Schedule] = "linear"
    """Shape of the learning rate after the warm-up; it spans the full budget at every rung."""
    warmup_frac: TrainingFlag[float] = 0.05
    """Share of max_steps over which the learning rate rises, in [0, 1)."""
    weight_decay: TrainingFlag[float] = 0.0
    """AdamW's decoupled weight decay, 0 or more."""
    max_grad_norm: TrainingFlag[float] = 1.0
    """Largest L2 norm of a trial's gradient, above 0."""
    eval_rows: ScoringFlag[int] = 200
    """Validation rows that the last report scores: the first eval_rows of a fixed order."""
    low_rung_eval_rows: ScoringFlag[int | None] = None
    """Rows that the reports before it score, the first of the same order; None is eval_rows."""
    eval_batch_size: ScoringFlag[int] = 32
    """Prompts that are generated together."""
    max_new_tokens: ScoringFlag[int] = 96
    """Longest generated answer, in tokens, its thought included."""
    thinking: ScoringFlag[bool] = False
    """Let a model that can think do so before its answer when it is scored; training rows do not
    think. Needs a larger max_new_tokens."""
    base: TrainingFlag[BaseType] = "nf4"
    """What the frozen base is: nf4 quantises its linear layers (QLoRA); bf16 leaves them as they
    are, in compute_dtype (plain LoRA), which takes more memory."""
    compute_dtype: TrainingFlag[ComputeDtype] = "bfloat16"
    """Type in which the base's weights are multiplied."""

    def __post_init__(self) -> None:
        counts = ("batch_size", "micro_batch_size", "eval_rows", "eval_batch_size")
        for name in (*counts, "max_new_tokens"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        low = self.low_rung_eval_rows
        require(low is None or low >= 1, "low_rung_eval_rows", low, "at least 1")
        rule = f"a divisor of batch_size ({self.batch_size})"
        divides = self.batch_size % self.micro_batch_size == 0
        require(divides, "micro_batch_size", self.micro_batch_size, rule)
        require(
            self.max_length_tokens >= 16, "max_length_tokens", self.max_length_tokens, "at least 16"
        )
        require(0.0 <= self.warmup_frac < 1.0, "warmup_frac", self.warmup_frac, "in [0, 1)")
        is_decay = math.isfinite(self.weight_decay) and self.weight_decay >= 0.0
        require(is_decay, "weight_decay", self.weight_decay, "0 or more")
        require(_is_positive(self.max_grad_norm), "max_grad_norm", self.max_grad_norm, "above 0")


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What a task may be told about its rows; a task refuses options that it has no use for."""

    input: str | None = None
    """table: column of the source text."""
    target: str | None = None
    """table: column of the summary or the label."""
    sheet: str | None = None
    """Name of the sheet of an .xlsx file; None is every sheet that is called after a split, or the
    first that looks like a table."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a file whose first row holds none, in their order."""
    encoding: str | None = None
    """Encoding of text files by Python's name, e.g. cp1251 or shift_jis; None finds UTF-8, UTF-16
    and Turkish or Western Windows files."""
    skip_rows: int = 0
    """Lines of a CSV file, or rows of a sheet, above the one with the columns' names."""
    max_rows: int | None = None
    """Rows of each split, or of a table that is to be split, to use at most, drawn the same every
    time; None uses all."""
    kind: Kind | None = None
    """table: what the target is: a summary, any text to write ("generate"), a label to choose, or
    the last answer of a conversation, which the input column holds ("chat")."""
    train_on: TrainedTurns | None = None
    """Conversations: whether the loss counts all of the assistant's turns or the last; None is
    all. The last one is scored."""
    system_prompt: str | None = None
    """table: system message of every row; a conversation that has its own keeps it."""
    prompt: str | None = None
    """User message with column names in braces, e.g. "Summarize: {text}", or the name of one of the
    task's own prompts; None is the task's first."""
    language: Language | None = None
    """Language of the targets, by which ROUGE lower-cases and stems; None is the task's own, else
    English."""
    label_names: tuple[str, ...] | None = None
    """Classification: what the labels are called in the answer, as VALUE=NAME, e.g. "0=neutral"."""
    balance: Balance = "none"
    """Classification: "oversample" repeats the training rows of rare labels."""
    augment_copies: int = 0
    """Copies of every training row whose input text has noise in it, 100 at most: words left out,
    exchanged or misspelt, drawn by the sweep's seed. Of a conversation it is the last question."""
    augment_noise: float = AUGMENT_NOISE
    """Share of the words that one copy changes, above 0 and below 1."""
    paraphrases: str | None = None
    """File with paraphrases of training rows, in a column called paraphrase beside the original
    text, or the row's id in a column called id. Those of validation and test rows are left out."""
    metric: MainFlag[str | None] = None
    """Scores to report, as NAME[,NAME...]; the first ranks trials. Of texts rouge1, rouge2, rougeL,
    rougeLsum, exact_match, token_f1, json_fields, bleu and chrf; of labels accuracy, macro_f1, mcc
    and f1_LABEL; of both eval_loss, FILE.py:FUNCTION[:KEY] (your own) and
    evaluate:NAME_OR_DIR[:KEY] (a module of evaluate). None is rougeLsum, or accuracy of labels."""
    metric_mode: ScoringFlag[Literal["max", "min"] | None] = None
    """Whether more or less is better of a metric of your own or of evaluate; None is more."""

    def __post_init__(self) -> None:
        require(self.columns != (), "columns", self.columns, "one name or more")
        require(self.skip_rows >= 0, "skip_rows", self.skip_rows, "0 or more")
        require(self.max_rows is None or self.max_rows >= 1, "max_rows", self.max_rows, "1 or more")
        copies, noise = self.augment_copies, self.augment_noise
        require(0 <= copies <= 100, "augment_copies", copies, "from 0 to 100")
        require(0.0 < noise < 1.0, "augment_noise", noise, "above 0 and below 1")
        has_copies = copies > 0 or noise == AUGMENT_NOISE
        require(has_copies, "augment_noise", noise, "given with --augment-copies N")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(TrainingOptions):
    """What all trials of a sweep share: rows, model, budget and the options above."""

    rows_dir: Path
    """Folder of the prepared rows, which trainables.data.prepared_rows reads."""
    model: str
    """Hub id or folder of a Qwen causal language model."""
    max_steps: int
    """Full budget of a trial, in optimizer steps; the learning-rate schedule spans it."""
    rungs: tuple[int, ...]
    """Steps at which a trial reports, ascending; the last is max_steps."""
    seed: int = 0
    """Seed of the row order, the adapter's initial weights and its dropout."""
    storage: str | None = None
    """URL of the run on object storage, from which nodes have rows and checkpoints; None where they
    share the run's folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_steps >= 1, "max_steps", self.max_steps, "at least 1")
        is_rising = all(a < b for a, b in zip((0, *self.rungs), self.rungs, strict=False))
        is_whole = bool(self.rungs) and is_rising and self.rungs[-1] == self.max_steps
        rule = f"ascending steps that end with max_steps ({self.max_steps})"
        require(is_whole, "rungs", self.rungs, rule)
        require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 2**32 - 1")

    def __getstate__(self) -> dict[str, Any]:
        """A bundled model is pickled as its place in this package, which every node has."""
        model = Path(self.model)
        if not model.is_relative_to(_PACKAGE):
            return vars(self)
        return vars(self) | {"model": model.relative_to(_PACKAGE)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["model"], Path):
            state = state | {"model": str(_PACKAGE / state["model"])}
        vars(self).update(state)

    @property
    def warmup_steps(self) -> int:
        """Steps over which the learning rate rises."""
        return round(self.warmup_frac * self.max_steps)


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Everything that one trial needs, and nothing about the sweep around it."""

    trial_id: str
    """Name of the trial in its sweep, e.g. "t0003"."""
    params: Hyperparameters
    """The point of the search space."""
    settings: TrainingSettings
    """What it shares with its sweep's other trials; a final run has a seed of its own."""
    folder: Path
    """Absolute folder for the trial's checkpoints; a trial found there goes on from it."""

    @property
    def storage(self) -> str | None:
        """URL of its checkpoints on object storage, if they are there."""
        run = self.settings.storage
        return run and f"{run}/checkpoints/{self.trial_id}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: nothing in it changes, and Ray Tune copies it three times a trial."""
        return self


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """One evaluation of one trial, at a rung."""

    trial_id: str
    step: int
    """Optimizer steps done."""
    metrics: dict[str, float]
    """Validation scores by name, e.g. rouge1, rouge2, rougeL, rougeLsum (0 to 100), eval_loss."""
    train_loss: float
    """Mean loss a labelled token, over the optimizer steps since the last report."""
    learning_rate: float
    """Learning rate of the last step."""
    epoch: float
    """Passes over the training rows done."""
    tokens: int
    """Real (non-padding) training tokens since the trial began, prompt included."""
    tokens_per_s: float
    """Real training tokens a second since the last report, evaluation excluded."""
    seconds: float
    """Busy wall seconds since the trial began (training and evaluation; over all attempts)."""
    peak_gib: float
    """Highest memory held: allocated on the GPU, or resident in the process on a CPU."""
    checkpoint: Path
    """Absolute PEFT folder that holds the adapter of this step."""
    eval_rows: int = 0
    """Validation rows that the metrics are of; 0 in a log that does not say."""
    gpu_seconds: float = 0.0
    """The trial's share of its packs' wall time since it began, over all attempts; 0 where it
    trains alone."""
    pack: str = ""
    """Id of the pack that it trains in, as its ledger has it; empty where it trains alone."""
    slot: int | None = None
    """Its place in that pack."""
    entered: float = 0.0
    """When it took that place, in Unix time."""
    device: str = ""
    """Name of that pack's GPU, or "cpu"."""
    cohort: "tuple[TrialReport, ...]" = field(default=(), repr=False)
    """Reports of the other trials that were scored in the same round at the same step, so that
    the sweep can decide about all of them at once. On their way only: no file keeps them."""


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def require(holds: bool, name: str, value: object, rule: str) -> None:
    """Refuses the value of a field, in the words of all configs.

    Raises:
        ValueError: it does not hold.
    """
    if not holds:
        raise ValueError(f"{name} is {value!r}; it must be {rule}")
