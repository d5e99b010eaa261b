"""The card's metadata is what the Hub reads, and no user text breaks or leaks through it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given
from hypothesis import strategies as st

from sweeps.finals.outcome import Outcome
from sweeps.finals.verdict import Finalist, Verdict
from sweeps.publish.card_facts import CardFacts, describe
from sweeps.publish.model_card import render
from sweeps.recipes import RECIPES
from tests.examples import max_examples
from tests.sweeps.example_facts import FACTS, METRIC, OUTCOME, PARAMS, facts
from tests.sweeps.invented_sweep import make_final_run
from trainables import tiny
from trainables.config import Metric
from trainables.data.rows import Scoring
from trainables.metrics.classification import Confusion


def metadata(card_facts: CardFacts) -> dict:
    return ModelCard(render(card_facts)).data.to_dict()


def scored(validation: dict[str, float]) -> Outcome:
    return replace(OUTCOME, scores={"validation": validation})


def named(trial_id: str) -> Outcome:
    winner = OUTCOME.winner
    return replace(OUTCOME, winner=replace(winner, run=replace(winner.run, trial_id=trial_id)))


def test_metadata_names_base_dataset_and_kind() -> None:
    data = metadata(FACTS)
    assert data["library_name"] == "peft"
    assert data["pipeline_tag"] == "text-generation"
    assert data["base_model"] == "Qwen/Qwen3-0.6B"
    assert data["base_model_relation"] == "adapter"
    assert data["datasets"] == ["knkarthick/samsum"]
    assert {"lora", "qlora", "hyperparameter-search"} <= set(data["tags"])


def test_metadata_names_language_and_licence_only_where_they_are_told() -> None:
    assert not {"language", "license", "license_name"} & metadata(FACTS).keys()
    assert "Licence: not stated" in render(FACTS)
    link = "https://x.org/LICENSE"
    licence = {"license": "other", "license_name": "qwen-research", "license_link": link}
    told = facts(language="turkish", license=licence)
    data = metadata(told)
    assert data["language"] == ["tr"]
    assert (data["license"], data["license_name"]) == ("other", "qwen-research")
    assert data["license_link"] == "https://x.org/LICENSE"
    assert "- Licence: qwen-research, the base's own, as its card says." in render(told)


def test_each_score_is_filed_by_what_it_is() -> None:
    scores = {"accuracy": 90.0, "macro_f1": 80.0, "mcc": 0.7, "eval_loss": 1.0, "f1_bad": 70.0}
    of_labels = facts(
        outcome=scored(scores),
        scoring=Scoring(kind="classify"),
        metric=Metric(name="accuracy"),
        trials=[],
    )
    results = ModelCard(render(of_labels)).data.eval_results
    found = {r.metric_name: (r.task_type, r.metric_type) for r in results}
    assert found == {
        "accuracy": ("text-classification", "accuracy"),
        "macro_f1": ("text-classification", "f1"),
        "mcc": ("text-classification", "matthews_correlation"),
        "eval_loss": ("text-classification", "loss"),
    }
    assert {r.task_type for r in ModelCard(render(FACTS)).data.eval_results} == {"summarization"}


def test_card_shows_values_as_people_write_them() -> None:
    params = replace(PARAMS, use_rslora=True, target_modules=("q_proj", "v_proj"))
    run = replace(OUTCOME.winner.run, params=params)
    outcome = replace(OUTCOME, winner=replace(OUTCOME.winner, run=run))
    body = render(facts(outcome=outcome, trials=[run])).partition("## Scores")[2]
    cells = [cell.strip() for line in body.splitlines() for cell in line.split("|")]
    assert not {"None", "True", "False"} & {*cells} and "('" not in body and "nan" not in cells
    assert "| use_rslora | yes |" in body and "| thinking | no |" in body
    assert "| target_modules | q_proj, v_proj |" in body
    assert "| rungs | 10, 30, 90 |" in body and "low_rung_eval_rows" not in body
    assert "| 0.0003162 | yes | q_proj,v_proj |" in body


def test_leads_over_what_was_not_trained_stand_beside_the_scores_with_intervals() -> None:
    lead = {"validation_lead": {"rougeLsum": 39.5}, "test_lead": {"rougeLsum": 38.0}}
    outcome = replace(
        OUTCOME,
        scores=OUTCOME.scores | lead,
        baselines={"lead": "the input's first sentence"},
        intervals={
            "base": {"validation": (12.5, 17.0), "test": None},
            "lead": {"test": (-0.25, 3.5)},
        },
    )
    section = render(facts(outcome=outcome)).partition("## Scores")[2].partition("## ")[0]
    assert "| validation | the untuned base | 15.00 | 12.50 to 17.00 | yes |" in section
    assert "| test | the input's first sentence | 1.75 | -0.25 to 3.50 | no |" in section
    assert "| test | the untuned base |" not in section and "95% interval" not in render(FACTS)


def test_search_is_shown_by_rung_and_limits_are_told() -> None:
    card = render(FACTS)
    assert "| 30 | 1 | 50.00 | 50.00 |\n| 90 | 12 | 39.50 | 34.00 |" in card
    limits = card.partition("## Limits")[2].partition("## ")[0]
    assert "beyond 1,016 tokens" in limits and "test's 819 rows were looked at once" in limits
    assert "trained each configuration once, so the lead of the best one may be chance" in limits
    untested = render(facts(outcome=scored({"rougeLsum": 40.5})))
    assert "there is no score on test" in untested


def test_card_says_what_the_base_is() -> None:
    card = render(FACTS)
    assert "A QLoRA adapter for" in card and "with its linear layers in NF4 and frozen" in card
    plain = facts(settings=replace(FACTS.settings, base="bf16"))
    card = render(plain)
    assert "A LoRA adapter for Qwen/Qwen3-0.6B" in card and "NF4" not in card
    assert "in float32, not quantised (plain LoRA) and frozen" in card
    assert (
        {"lora", "peft"} <= set(metadata(plain)["tags"]) - {"qlora"} == set(metadata(plain)["tags"])
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_bundled_model_and_rows_are_called_so(recipe: str) -> None:
    config = RECIPES[recipe](True)
    assert isinstance(config.data, str)
    elsewhere = "/home/me/site-packages/trainables/tiny"
    data = config.data.replace(str(tiny.FOLDER), elsewhere)
    card = render(facts(base_model=config.model, dataset=data))
    name = "messages-tiny" if recipe == "table" else f"{recipe.replace('_', '-')}-tiny"
    assert "A QLoRA adapter for tiny-qwen3 (a bundled tiny base), finetuned on" in card
    assert f"on {name} (bundled synthetic " in card and f"- Data: {name} (bundled syn" in card
    results = ModelCard(card).data.eval_results
    assert {(r.dataset_name, r.dataset_type) for r in results} == {(name, name)}
    assert describe("/home/me/tiny/samsum") == describe(str(tiny.FOLDER / "x/samsum")) == "samsum"


def test_model_index_has_every_metric_of_the_adapter_with_its_split_and_dataset() -> None:
    results = ModelCard(render(FACTS)).data.eval_results
    found = {(r.dataset_split, r.metric_name): r.metric_value for r in results}
    assert found == {
        ("validation", "rouge1"): 48.125,
        ("validation", "rougeLsum"): 40.5,
        ("validation", "eval_loss"): 1.25,
        ("test", "rouge1"): 47.0,
        ("test", "rougeLsum"): 39.75,
    }
    assert {r.dataset_type for r in results} == {"knkarthick/samsum"}
    assert {r.dataset_revision for r in results} == {"refs/convert/parquet"}


def test_a_score_that_is_not_a_number_stays_out_of_the_index_and_in_the_table() -> None:
    card_facts = facts(outcome=scored({"rougeLsum": 40.5, "eval_loss": float("nan")}))
    names = [r.metric_name for r in ModelCard(render(card_facts)).data.eval_results]
    assert names == ["rougeLsum"]
    assert "| validation | eval_loss | nan |  |" in render(card_facts)


def test_local_paths_show_only_their_last_name(tmp_path: Path) -> None:
    base = tmp_path / "private-place" / "Qwen3-0.6B"
    base.mkdir(parents=True)
    rows = tmp_path / "private-place" / "my rows.csv"
    card_facts = facts(base_model=str(base), dataset=str(rows))
    data = metadata(card_facts)
    assert "base_model" not in data
    assert "datasets" not in data
    assert {r["dataset"]["type"] for r in data["model-index"][0]["results"]} == {"my-rows.csv"}
    card = render(card_facts)
    assert "private-place" not in card and "rows_dir" not in card
    assert "Base: Qwen3-0.6B, a local folder" in card
    assert "Data: my rows.csv" in card


def test_body_has_scores_beside_the_base_rows_rule_and_ten_trials() -> None:
    card = render(FACTS)
    assert "| test | rougeLsum | 39.75 | 24.12 |" in card
    assert "14731 train, 818 validation, 819 test. Rows left out: 1 empty dialogue." in card
    assert "14 trials (12 completed, 1 stopped, 1 failed)" in card
    assert "highest validation rougeLsum among the trials that reached the last rung" in card
    assert "(step 90); then one look at test" in card
    assert "| learning_rate | 0.00031622776 |" in card
    assert "The best 10 of 14 trials; a score at a lower step" in card
    assert "| t0010 |" in card
    assert "| t0011 |" not in card
    assert FACTS.prompt_template in card
    assert FACTS.command in card
    assert all(f"| {name} | {digest} |" in card for name, digest in FACTS.row_digests.items())


def test_card_says_whether_the_model_thought() -> None:
    assert "before the chat template (thinking off):" in render(FACTS)
    card = render(facts(settings=replace(FACTS.settings, thinking=True)))
    assert "before the chat template (thinking on):" in card


def test_a_sweep_without_a_test_score_claims_no_look_at_test() -> None:
    card = render(facts(outcome=scored({"rougeLsum": 40.5})))
    assert "one look at test" not in card
    assert "the test split was not used" in card


def test_markdown_in_names_shows_as_text() -> None:
    card = render(
        facts(sweep_name="a|b <img src=x> [c](http://d) `e`\n# f", outcome=named("_t*1*_"))
    )
    body = ModelCard(card).text
    assert r"# a\|b \<img src=x\> \[c\](http://d) \`e\` \# f" in body
    assert r"trial \_t\*1\*\_, the best" in body


def test_a_prompt_with_a_fence_stays_inside_its_block() -> None:
    card = render(facts(prompt_template="```\n{dialogue}\n```\n# no heading"))
    assert "````text\n```\n{dialogue}\n```\n# no heading\n````" in card


def test_trials_added_by_hand_are_told_beside_the_command() -> None:
    added = replace(FACTS.trials[-1], is_asked=True)
    card = render(facts(trials=[*FACTS.trials[:-1], added]))
    assert f"{FACTS.command}\n```\n\nTrials that were added by hand, which this command" in card
    assert "does not repeat: 1.\n\n| rows |" in card and "by hand" not in render(FACTS)


def test_secrets_never_reach_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "0123456789abcdef-key")
    command = (
        "WANDB_API_KEY=fromcommandline python -m sweeps.run samsum --hub-token given "
        "--study-storage postgresql://me:pass!word@db/x --name hf_abcdefABCDEF123456"
    )
    card = render(facts(command=command, sweep_name="0123456789abcdef-key"))
    for secret in ("fromcommandline", "given ", "pass!word", "hf_abcdef", "0123456789abcdef"):
        assert secret not in card
    assert "postgresql://me:REDACTED@db/x" in card
    assert ModelCard(card).data.model_name == "REDACTED"


@max_examples(150)
@given(text=st.text(min_size=1, max_size=60))
@example(text="a: b\n---\n# c")
def test_no_text_breaks_the_metadata_or_the_sections(text: str) -> None:
    card_facts = facts(
        base_model="./" + text,
        dataset="./" + text,
        sweep_name=text,
        task=text,
        outcome=named(text),
        prompt_template=text,
        command=text,
        license={"license": "other", "license_name": text, "license_link": text},
    )
    card = ModelCard(render(card_facts))
    assert card.data.library_name == "peft"
    assert len(card.data.eval_results) == 5
    assert re.search(r"^## Scores$", card.text, re.M)


def test_confusion_matrix_is_a_table_of_the_labels_as_data() -> None:
    assert "Confusion matrix" not in render(FACTS)
    table = Confusion(("a|b", "<b>no</b>"), ((5, 1), (0, 7)))
    text = render(facts(confusion=table))
    _, _, section = text.partition("## Confusion matrix")
    rows = [line for line in section.partition("## ")[0].splitlines() if line.startswith("|")]
    assert rows == [
        r"| target | a\|b | \<b\>no\</b\> |",
        "| --- | --- | --- |",
        r"| a\|b | 5 | 1 |",
        r"| \<b\>no\</b\> | 0 | 7 |",
    ]


def test_confusion_matrix_of_many_labels_stays_in_its_file() -> None:
    labels = tuple(f"label {n}" for n in range(21))
    text = render(facts(confusion=Confusion(labels, ((0,) * 21,) * 21)))
    assert "confusion.csv" in text and "label 7" not in text


def test_card_tells_how_the_finals_ended_and_how_sure_that_is() -> None:
    runs = tuple(
        make_final_run(name, seed, value)
        for seed, (name, value) in enumerate([("f0001s1", 41.5), ("f0001s2", 40.5)])
    )
    first = Finalist(
        trial_id="t0001", params=PARAMS, metric=METRIC, runs=runs, probability_best=0.87
    )
    second = replace(first, trial_id="t0002", runs=runs[1:], probability_best=0.13)
    verdict = Verdict(
        metric=METRIC,
        finalists=(first, second),
        lead=0.5,
        interval=(-0.25, 1.5),
        num_rows=818,
        notes=("f0002s1 (t0002 with seed 1) is missing: failed, <b>oom</b>",),
    )
    card = render(facts(verdict=verdict))
    assert "as a mean over the seeds with which the best trials were trained again" in card
    assert "- winner of the finals: t0001, rougeLsum 41.00 +- 0.71 over 2 fresh seeds" in card
    assert "95% interval -0.25 to 1.50" in card and "the lead may be chance" in card
    assert "best/ holds f0001s1" in card
    assert "| t0001 | 2 | 41.00 | 0.71 | 0.87 |" in card
    assert "<b>" not in card
    assert "configuration once" not in card
    assert "finals" not in render(FACTS)
    failed = replace(verdict, finalists=(replace(first, runs=()),), lead=None)
    card = render(facts(verdict=failed))
    assert "among the trials that reached the last rung" in card and "configuration once" in card
