"""SweepConfig: everything that a sweep is asked to do. Frozen; loads neither torch nor Ray."""

import contextlib
import math
import os
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar, Literal

import tyro
from pydantic import ConfigDict, TypeAdapter, ValidationError

from search_spaces.lora import LoraSpace, Point, make_hyperparameters
from sweeps.command_line.durations import parse_duration
from sweeps.records.paths import RunPaths
from trainables import tiny
from trainables.config import (
    Data,
    DataFlag,
    EngineFlag,
    Hyperparameters,
    MainFlag,
    OutputFlag,
    ScoringFlag,
    SearchFlag,
    TaskOptions,
    TrainingOptions,
    TrainingSettings,
    require,
)
from trainables.metrics.registry import resolve_metrics
from trainables.models.hub_files import is_dataset_id, is_on_disk

Bertscore = Literal["off", "auto", "on"]
Engine = Literal["packed", "solo"]
Sampler = Literal["tpe", "gp", "random"]
WandbMode = Literal["auto", "online", "offline", "disabled"]

TRACKERS = ("wandb", "mlflow", "trackio", "tensorboard", "optuna")
"""That --track takes; the study of optuna is written always."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig(TrainingOptions):
    """One sweep: its task, model, search, budget and where it writes."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")  # a record's other names are refused

    recipe: tyro.conf.Suppress[str]
    """The recipe that this config came from, as it was given on the command line."""
    task: tyro.conf.Suppress[str]
    """Name of the task in trainables.data.tasks."""
    model: MainFlag[str]
    """Hub id or folder of a Qwen causal language model; tiny-hybrid is a bundled one of Qwen3.5's
    kind, for --tiny. All folders and files become absolute."""
    data: MainFlag[Data] = None
    """Files, plain or compressed, folders with train, validation and test files, or (table)
    OWNER/NAME of the Hub, with the task's rows; None is the task's own dataset on the Hub."""
    tiny: MainFlag[tyro.conf.FlagCreatePairsOff[bool]] = False
    """The bundled model, data and budget: no GPU, no network, minutes on two cores."""
    task_options: DataFlag[tyro.conf.OmitArgPrefixes[TaskOptions]] = field(
        default_factory=TaskOptions
    )
    """What the task is told about its rows."""

    num_trials: MainFlag[int] = 32
    """Trials that the sweep is asked for."""
    seed: SearchFlag[int] = 0
    """Seed of the search, of the row order and of every trial."""
    max_steps: MainFlag[int]
    """Full budget of a trial, in optimizer steps."""
    epochs: MainFlag[float | None] = None
    """Full budget as passes over the training rows, in place of max_steps."""
    num_rungs: SearchFlag[int] = 3
    """Levels at which ASHA compares trials, the last at max_steps."""
    reduction_factor: SearchFlag[int] = 3
    """ASHA keeps one trial in this many at each rung, and the rungs grow by it."""
    space: SearchFlag[tyro.conf.OmitArgPrefixes[LoraSpace]]
    """What may vary."""
    start_points: tyro.conf.Suppress[tuple[Point, ...]] = ()
    """Points that are tried first, in this order; those outside the space are left out. One that
    names only some of what may vary has the rest drawn."""
    sampler: SearchFlag[Sampler] = "tpe"
    """How all other points are drawn: "tpe" (Parzen estimators) and "gp" (a Gaussian process, which
    loads torch beside the sweep) learn from every report; "random" learns nothing."""

    finals: ScoringFlag[bool] = True
    """Whether the best configurations are trained with several seeds once the search has ended, and
    the winner is chosen by their means on validation."""
    num_finalists: ScoringFlag[int] = 4
    """Configurations that meet in the finals."""
    num_final_seeds: ScoringFlag[int] = 3
    """Fresh seeds of each; the run of the search was chosen for its value and does not count."""

    bertscore: ScoringFlag[Bertscore] = "off"
    """Whether the final answers to validation and test, of the winner and the untuned base, are
    scored by BERTScore too; "auto": if the encoder can be had when the sweep has ended."""
    bertscore_encoder: ScoringFlag[str] = "google-bert/bert-base-multilingual-cased"
    """Hub id or folder of BERTScore's encoder; the weights have to be safetensors."""
    bertscore_layer: ScoringFlag[int] = 9
    """Block of the encoder whose outputs are compared, from 1 on."""

    engine: EngineFlag[Engine] = "packed"
    """How trials train: "packed" trains the trials of a GPU together over one base; "solo" gives
    each its own process with TRL's SFTTrainer."""
    slots_per_gpu: EngineFlag[int | Literal["auto"]] = "auto"
    """Trials that share one GPU (without a GPU: this machine). auto: as its memory allows; packed,
    so that at most a third of the trials (2 at least) run at once over all GPUs and the others are
    proposed with results known; solo, 8 at most."""
    gpus: MainFlag[int | None] = None
    """GPUs of the cluster to use at most; None uses all of them."""
    time_budget: MainFlag[str | None] = None
    """Wall time of the whole sweep, e.g. 2h, 45m, 1h30m or 90s: the search ends early enough for
    the finals and the test. A resumed sweep counts what it has used before."""
    gpu_hours: EngineFlag[float | None] = None
    """GPU-hours of the whole sweep: hours times GPUs that it holds; those that a cluster gets later
    stay unused then. A machine without a GPU counts as one."""
    estimate: EngineFlag[bool] = True
    """Measure a pack's throughput for a few seconds before the first trial, and predict what the
    sweep will take. No trial is changed by it."""
    max_failures: EngineFlag[int] = 2
    """Times that a trial is started again, from its last report, after its process died."""

    runs_dir: OutputFlag[str] = "runs"
    """Folder that holds one folder a sweep; on a cluster, one that every node shares."""
    checkpoints: OutputFlag[str | None] = None
    """URL on object storage, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER, or file:///FOLDER, through
    which nodes pass on checkpoints and rows, so that they need not share runs_dir. All else of the
    run is copied there, and --resume goes on from it on any machine. None keeps all in runs_dir."""
    name: MainFlag[str]
    """Name of the sweep and of its folder: letters, digits, '.', '_' and '-'."""
    study_storage: OutputFlag[str | None] = None
    """SQLAlchemy URL of the Optuna study for dashboards, e.g. a PostgreSQL server; None keeps
    RUN/optuna.db."""
    track: OutputFlag[str] = "wandb"
    """Where the sweep is shown while it runs: some of wandb, mlflow, trackio and tensorboard, with
    commas between them, or none. All but wandb are extras, e.g. pip install '.[mlflow]'."""
    wandb: MainFlag[WandbMode] = "auto"
    """Where W&B logs; "auto" is online when a login is found, else offline (tiny: offline)."""
    wandb_project: OutputFlag[str] = "qlora-sweeps"
    """W&B project of the runs."""
    wandb_entity: OutputFlag[str | None] = None
    """W&B user or team of the runs; None is the login's default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "runs_dir", os.path.expanduser(self.runs_dir))
        for name in ("model", "bertscore_encoder"):
            object.__setattr__(self, name, resolve_model(getattr(self, name)))
        object.__setattr__(self, "data", resolve_data(self.data))
        options = self.task_options
        if options.metric is not None:
            options = replace(options, metric=resolve_metrics(options.metric))
        if options.paraphrases is not None:
            options = replace(options, paraphrases=_resolve_path(options.paraphrases))
        object.__setattr__(self, "task_options", options)
        counts = ("num_trials", "max_steps", "num_rungs", "num_finalists", "num_final_seeds")
        least = {**dict.fromkeys((*counts, "bertscore_layer", "gpus"), 1), "reduction_factor": 2}
        for name, bound in (least | {"max_failures": 0}).items():
            value = getattr(self, name)
            require(value is None or value >= bound, name, value, f"at least {bound}")
        for name in ("gpu_hours", "epochs"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, name, value, "above 0")
        is_slots = self.slots_per_gpu == "auto" or self.slots_per_gpu >= 1
        require(is_slots, "slots_per_gpu", self.slots_per_gpu, 'at least 1, or "auto"')
        require(self.num_rungs <= 20, "num_rungs", self.num_rungs, "20 at most")
        require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 2**32 - 1")
        is_time = False
        with contextlib.suppress(ValueError):
            is_time = self.time_budget_s is None or self.time_budget_s > 0
        rule = "a time above 0, e.g. 2h, 45m, 1h30m or 90s"
        require(is_time, "time_budget", self.time_budget, rule)
        require(self.data != (), "data", self.data, "one file or more")
        is_name = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name) is not None
        require(is_name, "name", self.name, "letters, digits, '.', '_' and '-', 100 at most")
        trackers = split_trackers(self.track)
        is_wandb = "wandb" in trackers or self.wandb in ("auto", "disabled")
        rule = f"with wandb in it for --wandb {self.wandb}, e.g. wandb,{self.track}"
        require(is_wandb, "track", self.track, rule)
        is_folder = "://" not in self.runs_dir
        rule = "a folder; for object storage there is --checkpoints URL"
        require(is_folder, "runs_dir", self.runs_dir, rule)
        is_url = re.fullmatch(
            r"(s3|gs)://[\w.-]+(/[^@?#]*)?|file:///[^?#]+", self.checkpoints or ""
        )
        rule = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or file:///FOLDER, without a key in it"
        require(bool(is_url or self.checkpoints is None), "checkpoints", self.checkpoints, rule)

    @property
    def paths(self) -> RunPaths:
        """The files of the run."""
        return RunPaths.from_name(self.runs_dir, self.name)

    @property
    def storage(self) -> str | None:
        """URL of the run on object storage, if it is to be there."""
        return self.checkpoints and f"{self.checkpoints.rstrip('/')}/{self.name}"

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in track."""
        return split_trackers(self.track)

    @property
    def time_budget_s(self) -> float | None:
        """time_budget in seconds."""
        return None if self.time_budget is None else parse_duration(self.time_budget)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Optimizer steps at which trials report: max_steps / reduction_factor ** k, ascending."""
        levels = (self.max_steps / self.reduction_factor**k for k in range(self.num_rungs))
        return tuple(sorted({max(1, round(steps)) for steps in levels}))

    def count_scored_rows(self, num_validation: int) -> tuple[int, ...]:
        """Validation rows that a report scores, by rung."""
        last = min(self.eval_rows, num_validation)
        low = min(self.low_rung_eval_rows or last, last)
        return (low,) * (len(self.rungs) - 1) + (last,)

    @property
    def settings(self) -> TrainingSettings:
        """What every trial of the sweep shares."""
        options = {f.name: getattr(self, f.name) for f in fields(TrainingOptions)}
        return TrainingSettings(
            **options,
            rows_dir=self.paths.rows,
            model=self.model,
            max_steps=self.max_steps,
            rungs=self.rungs,
            seed=self.seed,
            storage=self.storage,
        )


def split_trackers(track: str) -> tuple[str, ...]:
    """The names in track, each once.

    Raises:
        ValueError: one is no tracker's.
    """
    names = dict.fromkeys(name.strip() for name in track.split(",")) if track != "none" else {}
    rule = f"some of {', '.join(TRACKERS)} with commas between them, or none"
    require(names.keys() <= set(TRACKERS), "track", track, rule)
    return tuple(names)


def resolve_model(model: str) -> str:
    """The absolute path of what is on this disk or bundled; otherwise the Hub id as it is."""
    folder = os.path.expanduser(model)
    if is_on_disk(folder):
        return str(Path(folder).absolute())
    return str(tiny.MODELS.get(model, model))


def resolve_data(data: Data) -> Data:
    """The absolute paths of files and folders; the name of a dataset on the Hub as it was given."""
    if data is None or isinstance(data, str):
        return data if data is None or is_dataset_id(data) else _resolve_path(data)
    return tuple(map(_resolve_path, data))


def _resolve_path(path: str) -> str:
    if "://" in path:
        return path  # an address, which is told as it was given
    return str(Path(os.path.expanduser(path)).absolute())


def count_steps(config: SweepConfig, num_train_rows: int) -> SweepConfig:
    """The config with the steps of its epochs, if it has epochs."""
    if config.epochs is None:
        return config
    steps = math.ceil(config.epochs * num_train_rows / config.batch_size)
    return replace(config, max_steps=steps)


def fill_point(point: Point) -> Hyperparameters:
    """A trial's hyperparameters at a point; what it leaves out gets a common value.

    Raises:
        ValueError: no trial can have them.
    """
    common: Point = {"lora_rank": 16, "alpha_over_rank": 2.0, "learning_rate": 2e-4}
    try:
        return Hyperparameters(**make_hyperparameters(common | point))
    except (TypeError, OverflowError) as refused:  # say of a rank that is no float any more
        raise ValueError(str(refused)) from None


def to_json(config: SweepConfig) -> dict[str, object]:
    """The config as JSON values, for sweep.json."""
    values: dict[str, object] = TypeAdapter(SweepConfig).dump_python(config, mode="json")
    return values


def find_bad_value(config: SweepConfig) -> str:
    """The first field whose value is not of its type, in words; "" if all are. A command line gives
    none, but a recipe may: Python checks no type."""
    for name, kind in (("space", LoraSpace), ("task_options", TaskOptions)):
        value = getattr(config, name)
        if not isinstance(value, kind):  # a dict would pass below, and its unknown keys be ignored
            return f"{name} is {value!r}: it must be {kind.__name__}(...)"
    try:
        TypeAdapter(SweepConfig).validate_python(asdict(config))
    except ValidationError as refused:
        first = refused.errors()[0]
        is_nested = first["loc"][0] in ("space", "task_options")
        name = ".".join(map(str, first["loc"][: 1 + is_nested]))
        return f"{name} is {first['input']!r}: {first['msg']}"
    return ""


def from_json(values: dict[str, object]) -> SweepConfig:
    """The config that to_json wrote.

    Raises:
        pydantic.ValidationError: a field is missing, unknown, or has a value of another type.
    """
    return TypeAdapter(SweepConfig).validate_python(values)
