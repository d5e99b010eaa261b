"""SweepConfig: its way through JSON, what it refuses, and its rungs."""

import itertools
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.lora import LoraSpace
from sweeps.checks.run_args import RunArgs
from sweeps.cli import parse
from sweeps.config import SweepConfig, fill_point, from_json, to_json
from sweeps.recipes import RECIPES, samsum
from tests.sweeps.invented_sweep import make_config
from trainables.config import TrainingOptions
from trainables.tiny import HYBRID_DIR

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)
COUNTS = st.integers(1, 10**6)
POINTS = st.fixed_dictionaries(
    {
        "learning_rate": st.floats(1e-6, 1.0),
        "lora_rank": st.integers(1, 512),
        "alpha_over_rank": st.floats(0.1, 8.0),
        "lora_dropout": st.sampled_from([0.0, 0.05, 0.5]),
        "use_rslora": st.booleans(),
    },
    optional={"target_modules": st.sampled_from(["all", "q_proj,v_proj"])},
)


@st.composite
def spaces(draw: st.DrawFn) -> LoraSpace:
    low, high = sorted(draw(st.tuples(st.floats(1e-7, 1.0), st.floats(1e-7, 1.0))))
    return LoraSpace(
        learning_rates=(low, high),
        lora_ranks=tuple(draw(st.lists(st.integers(1, 256), min_size=1, max_size=3))),
        lora_dropouts=tuple(draw(st.lists(st.floats(0.0, 0.9), min_size=1, max_size=3))),
        rsloras=draw(st.sampled_from([(False,), (True,), (False, True)])),
        target_modules=draw(st.sampled_from([("all",), ("mlp", "attention", "q_proj,v_proj")])),
    )


CONFIGS = st.builds(
    SweepConfig,
    recipe=TEXT,
    task=TEXT,
    model=TEXT,
    data=st.none() | TEXT,
    tiny=st.booleans(),
    num_trials=COUNTS,
    seed=st.integers(0, 2**32 - 1),
    max_steps=COUNTS,
    num_rungs=st.integers(1, 9),
    reduction_factor=st.integers(2, 9),
    space=spaces(),
    start_points=st.lists(POINTS, max_size=3).map(tuple),
    slots_per_gpu=st.just("auto") | st.integers(1, 64),
    gpus=st.none() | COUNTS,
    max_failures=st.integers(0, 9),
    runs_dir=st.just("runs"),
    name=NAMES,
    study_storage=st.none() | TEXT,
    wandb=st.sampled_from(["auto", "online", "disabled"]),
    wandb_entity=st.none() | TEXT,
    schedule=st.sampled_from(["linear", "cosine"]),
    warmup_frac=st.floats(0.0, 0.99),
    weight_decay=st.floats(0.0, 1.0),
    max_grad_norm=st.floats(1e-3, 100.0),
)


@given(CONFIGS)
def test_config_survives_json(config: SweepConfig) -> None:
    back = from_json(json.loads(json.dumps(to_json(config), allow_nan=False)))
    assert back == config
    assert repr(back) == repr(config)  # 1, 1.0 and True are equal, but not the same setting


def test_json_holds_every_field_so_that_a_new_default_changes_no_old_sweep() -> None:
    values = to_json(make_config())
    assert values.keys() == {field.name for field in fields(SweepConfig)}
    assert isinstance(values["space"], dict)
    assert values["space"].keys() == {field.name for field in fields(LoraSpace)}


def test_space_of_a_version_without_target_modules_adapts_all_layers() -> None:
    values = to_json(make_config())
    assert isinstance(values["space"], dict)
    del values["space"]["target_modules"]
    assert from_json(values) == make_config()


@pytest.mark.parametrize("is_tiny", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name: str, is_tiny: bool) -> None:
    config = RECIPES[name](is_tiny)
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    assert config.tiny == is_tiny and config.recipe == name


@pytest.mark.parametrize("field", ["recipe", "model", "max_steps", "space", "name"])
def test_json_without_a_field_that_has_no_default_is_refused(field: str) -> None:
    values = to_json(make_config())
    del values[field]
    with pytest.raises(ValueError, match=field):
        from_json(values)


@pytest.mark.parametrize("part", ["", "space", "task_options"])
def test_json_with_a_field_of_another_version_is_refused(part: str) -> None:
    """Left out, its value would be the default's, and a trial another one."""
    values = to_json(make_config())
    holder = values[part] if part else values
    assert isinstance(holder, dict)
    holder["lora_rank_of_old"] = 8
    with pytest.raises(ValueError, match="lora_rank_of_old"):
        from_json(values)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_trials", "many"), ("num_trials", 0), ("space", 3), ("engine", "magic"), ("wandb", "x")],
)
def test_json_with_a_value_that_does_not_fit_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        from_json(to_json(make_config()) | {field: value})


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("num_trials", 0, "at least 1"),
        ("num_trials", -3, "at least 1"),
        ("max_steps", 0, "at least 1"),
        ("num_rungs", 0, "at least 1"),
        ("slots_per_gpu", 0, "at least 1"),
        ("reduction_factor", 1, "at least 2"),
        ("seed", -1, "from 0 to 2**32 - 1"),
        ("seed", 2**32, "from 0 to 2**32 - 1"),
        ("num_rungs", 10**9, "20 at most"),
        ("max_failures", -1, "at least 0"),
        ("gpus", 0, "at least 1"),
        ("name", "", "letters, digits"),
        ("name", "..", "letters, digits"),
        ("name", "a/b", "letters, digits"),
        ("name", "-rf", "letters, digits"),
        ("name", "günlük", "letters, digits"),
        ("name", "x\n", "letters, digits"),
        ("name", "x" * 101, "100 at most"),
        ("runs_dir", "s3://bucket/runs", "a folder"),
        ("checkpoints", "bucket/runs", "s3://BUCKET/FOLDER"),
        ("checkpoints", "ftp://host/runs", "s3://BUCKET/FOLDER"),
        ("checkpoints", "file://runs", "file:///FOLDER"),
        ("checkpoints", "s3://key:secret@bucket/runs", "without a key"),
        ("checkpoints", "s3://bucket/runs?secret=s", "without a key"),
        ("batch_size", 0, "at least 1"),
        ("micro_batch_size", 3, "a divisor of batch_size (8)"),
        ("max_length_tokens", 15, "at least 16"),
        ("warmup_frac", 1.0, "in [0, 1)"),
        ("weight_decay", -0.1, "0 or more"),
        ("weight_decay", float("nan"), "0 or more"),
        ("max_grad_norm", 0.0, "above 0"),
        ("eval_rows", 0, "at least 1"),
    ],
)
def test_bad_value_is_refused_with_the_value_and_the_rule(
    field: str, value: object, rule: str
) -> None:
    with pytest.raises(ValueError) as caught:
        make_config(**{field: value})
    message = str(caught.value)
    assert message.startswith(f"{field} is {value!r}; it must be ") and rule in message


@given(st.integers(1, 10**6), st.integers(1, 12), st.integers(2, 10))
def test_rungs_rise_and_end_at_the_full_budget(max_steps: int, num_rungs: int, factor: int) -> None:
    rungs = make_config(max_steps=max_steps, num_rungs=num_rungs, reduction_factor=factor).rungs
    assert 1 <= len(rungs) <= num_rungs and rungs[0] >= 1 and rungs[-1] == max_steps
    assert all(low < high for low, high in itertools.pairwise(rungs))


@given(st.integers(1, 1000), st.integers(1, 6), st.integers(2, 6))
def test_rungs_of_a_large_budget_grow_by_the_factor(
    first: int, num_rungs: int, factor: int
) -> None:
    last = first * factor ** (num_rungs - 1)
    rungs = make_config(max_steps=last, num_rungs=num_rungs, reduction_factor=factor).rungs
    assert rungs == tuple(first * factor**level for level in range(num_rungs))


def test_more_rungs_than_steps_stay_rungs() -> None:
    assert make_config(num_rungs=20, max_steps=9).rungs == (1, 3, 9)


def test_settings_hold_every_option_and_absolute_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "qwen").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {
        "batch_size": 4,
        "micro_batch_size": 2,
        "schedule": "cosine",
        "eval_rows": 7,
        "max_new_tokens": 5,
    }
    config = make_config(model="models/qwen", runs_dir="runs", name="n", seed=3, **options)
    settings = config.settings
    for field in fields(TrainingOptions):
        assert getattr(settings, field.name) == getattr(config, field.name)
    assert settings.model == f"{tmp_path}/models/qwen"
    assert settings.rows_dir == tmp_path / "runs" / "n" / "rows"
    assert (settings.rungs, settings.max_steps, settings.seed) == ((1, 3, 9), 9, 3)
    assert make_config(model="Qwen/Qwen3-0.6B").model == "Qwen/Qwen3-0.6B"


def test_bundled_model_is_named_where_no_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_config(model="tiny-hybrid").model == str(HYBRID_DIR)
    (tmp_path / "tiny-hybrid").mkdir()
    assert make_config(model="tiny-hybrid").model == f"{tmp_path}/tiny-hybrid"


@pytest.mark.parametrize("name", ["finals", "estimate"])
@pytest.mark.parametrize("saved", [True, False])
def test_a_switch_can_be_set_whatever_the_saved_config_says(name: str, saved: bool) -> None:
    default = RunArgs(config=replace(samsum(False), **{name: saved}))  # type: ignore[arg-type]
    for flag, expected in ((f"--{name}", True), (f"--no-{name}", False)):
        assert getattr(parse(RunArgs, [flag], "program", default).config, name) is expected
    assert getattr(parse(RunArgs, [], "program", default).config, name) is saved


@pytest.mark.parametrize("track", ["", "wandb,", "comet", "none,mlflow", "wandb mlflow"])
def test_unknown_trackers_are_refused(track: str) -> None:
    with pytest.raises(ValueError, match="track is"):
        replace(samsum(False), track=track)


def test_trackers_are_named_with_commas_or_none() -> None:
    assert replace(samsum(False), track="none").trackers == ()
    assert replace(samsum(False), track="mlflow, wandb,mlflow").trackers == ("mlflow", "wandb")


def test_wandb_mode_that_is_asked_for_needs_wandb_among_the_trackers() -> None:
    with pytest.raises(ValueError, match=r"wandb in it for --wandb online, e\.g\. wandb,mlflow"):
        replace(samsum(False), track="mlflow", wandb="online")


def test_point_is_filled_up_with_common_values_unless_no_trial_can_have_it() -> None:
    params = fill_point({"lora_rank": 8, "target_modules": "q_proj,v_proj"})
    assert (params.lora_alpha, params.learning_rate, params.lora_dropout) == (16.0, 2e-4, 0.0)
    assert params.target_modules == ("q_proj", "v_proj")
    for bad in ({"lora_rank": 0}, {"lora_rank": "8 or 16"}, {"lora_rank": 10**400}, {"rank": 8}):
        with pytest.raises(ValueError, match=r"."):
            fill_point(bad)
