"""A finished sweep's adapter reaches a folder or a Hub whole, or an error says what to do."""

import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from sweeps.finals.outcome import Outcome, Winner
from sweeps.publish.best_folder import write_folder
from sweeps.publish.summary import describe
from sweeps.records.paths import RunPaths
from tests.sweeps.commands import NO_HUB, Ended, call, start, world
from tests.sweeps.example_facts import facts
from tests.sweeps.invented_sweep import METRIC, make_config, make_history
from tests.sweeps.servers.hub_server import OWNER, TOKEN, HubServer
from trainables.errors import SweepAborted
from trainables.tiny import MODEL_DIR

REPO = f"{OWNER}/samsum-adapter"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT folder as a trial leaves it, with another machine's base in its config."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("checkpoint")
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    layers = ["q_proj", "v_proj"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=layers, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(folder)
    text = (folder / "adapter_config.json").read_text().replace(str(MODEL_DIR), "/elsewhere/base")
    (folder / "adapter_config.json").write_text(text)
    return folder


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "samsum-s0"
    folder.mkdir()
    (folder / "sweep.json").write_text("{}\n")
    base = str(MODEL_DIR)
    write_folder(folder / "best", checkpoint, facts(base_model=base), {})
    return folder


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "runs" / "samsum-s0"))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def environment(endpoint: str, token: str | None) -> dict[str, str]:
    """Nothing of this machine's login, and one Hub."""
    login = {} if token is None else {"HF_TOKEN": token}
    return {"HF_ENDPOINT": endpoint, "HF_HOME": "/nonexistent", "HF_HUB_DISABLE_XET": "1", **login}


def export(*args: object, endpoint: str = NO_HUB, token: str | None = TOKEN) -> Ended:
    """The command in this process, whose huggingface_hub reads the environment once more."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
            patch.delenv(name)
        for name, value in environment(endpoint, token).items():
            patch.setenv(name, value)
        importlib.reload(constants)
        ended = call("sweeps.export", *map(str, args))
    importlib.reload(constants)
    return ended


def refusal(ended: Ended) -> tuple[str, str]:
    """The error and fix lines of a command that refused; nothing else was said."""
    assert ended.code == 2, ended.stdout + ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr
    assert "uploaded" not in ended.stdout
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("warning: the base")]
    assert len(lines) == 2, ended.stderr
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("fix: ")
    return lines[0], lines[1]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_best_has_adapter_tokenizer_card_and_the_given_base(run: Path, checkpoint: Path) -> None:
    best = contents(run / "best")
    assert {"tokenizer.json", "tokenizer_config.json", "README.md"} <= set(best)
    shown = re.findall(r"!\[.*?\]\((.*?)\)", best["README.md"].decode())
    assert shown == ["search.png"] and best["search.png"].startswith(b"\x89PNG")
    weights = (checkpoint / "adapter_model.safetensors").read_bytes()
    assert best["adapter_model.safetensors"] == weights
    config = json.loads(best["adapter_config.json"])
    assert config["base_model_name_or_path"] == str(MODEL_DIR)
    assert config["r"] == 4
    assert str(MODEL_DIR).encode() not in b"".join(
        data for name, data in best.items() if name != "adapter_config.json"
    )


def test_best_is_replaced_whole_and_kept_when_its_successor_fails(
    run: Path, checkpoint: Path
) -> None:
    best, base = run / "best", str(MODEL_DIR)
    (best / "stale.txt").write_text("old")
    before = contents(best)
    with pytest.raises(SweepAborted, match="no-checkpoint is damaged"):
        write_folder(best, run / "no-checkpoint", facts(base_model=base), {})
    assert contents(best) == before
    write_folder(best, checkpoint, facts(base_model=base), {})
    assert "stale.txt" not in contents(best)
    assert sorted(path.name for path in run.iterdir()) == ["best", "sweep.json"]


def test_best_left_aside_by_a_stopped_process_comes_back(run: Path) -> None:
    best, base = run / "best", str(MODEL_DIR)
    before = contents(best)
    best.rename(run / ".best.old")
    with pytest.raises(SweepAborted, match="no-checkpoint is damaged"):
        write_folder(best, run / "no-checkpoint", facts(base_model=base), {})
    assert contents(best) == before


@pytest.mark.slow
def test_usage_code_of_the_card_answers_as_printed(run: Path) -> None:
    card = ModelCard.load(run / "best" / "README.md")
    code = re.search(r"^```python\n(.*?)^```$", card.text, re.M | re.S)
    assert code is not None
    script = code.group(1) + "\nprint('model', type(model).__name__)\n"
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=run / "best",
        env=quiet,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    *answer, model = ended.stdout.splitlines()
    assert "".join(answer).strip()
    assert model == "model PeftModelForCausalLM"


def test_upload_is_one_commit_of_the_bytes_of_best(run: Path, hub: HubServer) -> None:
    to = (str(run), "--to", f"hub:{REPO}")
    ended = start("sweeps.export", *to, folder=run.parent, **environment(hub.url, TOKEN))
    assert ended.code == 0, ended.stderr
    repo = hub.repos[REPO]
    (commit,) = repo.commits
    best = contents(run / "best")
    card, sent_card = best.pop("README.md"), commit.files.pop("README.md")
    assert commit.files == best
    assert sent_card == card.replace(
        b'adapter = "."  # the folder of this card', f'adapter = "{REPO}"'.encode()
    )
    assert sent_card != card
    assert commit.branch == "main"
    assert not repo.is_private
    assert len(repo.verified) == 2
    assert f"in one commit: {hub.url}/{REPO}/commit/" in ended.stdout
    assert TOKEN not in ended.stdout + ended.stderr
    results = ModelCard(sent_card.decode()).data.eval_results
    assert ("test", "rougeLsum", 39.75) in [
        (r.dataset_split, r.metric_name, r.metric_value) for r in results
    ]


def test_private_upload_to_a_branch(run: Path, hub: HubServer) -> None:
    ended = export(run, "--to", f"hub:{REPO}", "--private", "--revision", "dev", endpoint=hub.url)
    assert ended.code == 0, ended.stderr
    repo = hub.repos[REPO]
    assert repo.is_private
    assert [commit.branch for commit in repo.commits] == ["dev"]
    card = repo.commits[0].files["README.md"].decode()
    assert f"adapter = snapshot_download('{REPO}', revision='dev')" in card


def test_private_is_refused_for_a_repository_that_is_public(run: Path, hub: HubServer) -> None:
    assert export(run, "--to", f"hub:{REPO}", endpoint=hub.url).code == 0
    error, fix = refusal(export(run, "--to", f"hub:{REPO}", "--private", endpoint=hub.url))
    assert "exists and is public; nothing was uploaded" in error
    assert "settings" in fix
    assert len(hub.repos[REPO].commits) == 1


@pytest.mark.parametrize(
    ("path", "status", "said", "remedy"),
    [
        ("/api/whoami-v2", 401, "refused the token (401)", "hf auth login"),
        ("/api/repos/create", 403, "may not write to", f"write permission for {OWNER}"),
        ("/commit/", 403, "may not write to", f"write permission for {OWNER}"),
        ("/storage/", 403, "may not write to", f"write permission for {OWNER}"),
        ("/commit/", 409, "was changed at the same time", "wait until the other upload"),
        ("/storage/", 413, "too large (413)", "leave out --merge"),
        ("/storage/", 507, f"{OWNER} has no storage left", "settings/billing"),
        ("/api/repos/create", 500, "answered 500", "try again later"),
    ],
)
def test_refusal_by_the_hub_has_its_remedy_and_loses_nothing(
    run: Path, hub: HubServer, path: str, status: int, said: str, remedy: str
) -> None:
    before = contents(run)
    hub.refuse[path] = (status, f"no, {TOKEN}\x1b[2J")
    error, fix = refusal(export(run, "--to", f"hub:{REPO}", endpoint=hub.url))
    assert said in error and ("no, REDACTED [2J" in error or status == 401)
    assert remedy in fix
    assert any(path in call for call in hub.calls)
    assert contents(run) == before
    assert not any(repo.commits for repo in hub.repos.values())


def test_full_private_storage_is_no_lack_of_permission(run: Path, hub: HubServer) -> None:
    hub.refuse["/preupload/"] = (403, "Private repository storage limit reached")
    error, fix = refusal(export(run, "--to", f"hub:{REPO}", "--private", endpoint=hub.url))
    assert f"{OWNER} has no storage left" in error and "settings/billing" in fix


@pytest.mark.parametrize("way", ["folder", "hub"])
def test_card_states_the_licence_that_its_publisher_names(
    run: Path, hub: HubServer, tmp_path: Path, way: str
) -> None:
    before = contents(run)
    to = tmp_path / "copy" if way == "folder" else f"hub:{REPO}"
    ended = export(run, "--to", to, "--license", "cc-by-4.0", endpoint=hub.url)
    assert ended.code == 0, ended.stderr
    sent = contents(to) if way == "folder" else hub.repos[REPO].commits[0].files
    card = ModelCard(sent["README.md"].decode())
    assert card.data.license == "cc-by-4.0"
    assert "- Licence: cc-by-4.0, as stated by who published this." in card.text
    assert contents(run) == before


def test_licence_that_is_none_is_refused(run: Path, hub: HubServer) -> None:
    words = ("--to", f"hub:{REPO}", "--license", "My own")
    error, fix = refusal(export(run, *words, endpoint=hub.url))
    assert "'My own' is no identifier of a licence" in error and "--license apache-2.0" in fix
    assert hub.calls == []


def test_folder_in_the_home_is_the_homes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert export(run, "--to=~/copy").code == 0
    assert contents(tmp_path / "copy") == contents(run / "best")


def test_wrong_token_is_refused(run: Path, hub: HubServer) -> None:
    wrong = "hf_wrongTokenWrongToken"
    error, fix = refusal(export(run, "--to", f"hub:{REPO}", endpoint=hub.url, token=wrong))
    assert "refused the token (401)" in error
    assert wrong not in error + fix
    assert "GET /api/whoami-v2" in hub.calls
    assert not any(call.startswith("POST") for call in hub.calls)


def test_unknown_owner_is_refused(run: Path, hub: HubServer) -> None:
    to = (str(run), "--to", "hub:nobody/adapter")
    ended = start("sweeps.export", *to, folder=run.parent, **environment(hub.url, TOKEN))
    error, fix = refusal(ended)
    assert "no user or organisation nobody (404)" in error
    assert "hf auth whoami" in fix


def test_upload_without_a_token_says_how_to_log_in(run: Path, hub: HubServer) -> None:
    error, fix = refusal(export(run, "--to", f"hub:{REPO}", endpoint=hub.url, token=None))
    assert "no Hugging Face token" in error
    assert "hf auth login" in fix
    assert "HF_TOKEN" in fix
    assert hub.calls == []


def test_unreachable_hub_is_named(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    error, fix = refusal(export(run, "--to", f"hub:{REPO}", endpoint=endpoint))
    assert f"cannot reach {endpoint}" in error
    assert "HF_ENDPOINT" in fix


def test_card_with_broken_metadata_is_refused_before_anything_is_sent(
    run: Path, hub: HubServer
) -> None:
    card = run / "best" / "README.md"
    card.write_text(card.read_text().replace("library_name: peft", "library_name: [peft"))
    error, fix = refusal(export(run, "--to", f"hub:{REPO}", endpoint=hub.url))
    assert "metadata" in error
    assert str(card) in fix
    assert hub.calls == []


@pytest.mark.parametrize(
    "target", ["hub:name", "hub:", "hub:a/b/c", "hub:me/na me", "hub:me/a--b", "", "https://x/y/z"]
)
def test_target_of_a_wrong_form_is_refused(run: Path, target: str) -> None:
    error, fix = refusal(export(run, "--to", target))
    assert repr(target) in error
    assert "--to hub:USER/NAME" in fix


def test_folder_gets_the_bytes_of_best(run: Path, tmp_path: Path) -> None:
    ended = export(run, "--to", tmp_path / "deep" / "copy", "--json", token=None)
    assert ended.code == 0, ended.stderr
    folder = str(tmp_path / "deep" / "copy")
    told = {"run": str(run), "trial_id": None, "folder": folder}
    assert (json.loads(ended.stdout), ended.stderr) == (told, f"wrote {folder}\n")
    assert contents(tmp_path / "deep" / "copy") == contents(run / "best")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy"]


def test_folder_that_is_not_empty_is_left_alone(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    error, _ = refusal(export(run, "--to", target))
    assert "exists and is not an empty folder" in error
    assert contents(target) == {"mine.txt": b"mine"}


def test_folder_inside_best_is_refused(run: Path) -> None:
    before = contents(run)
    error, _ = refusal(export(run, "--to", run / "best" / "copy"))
    assert "is inside" in error
    assert contents(run) == before


def test_hub_flags_are_refused_for_a_folder(run: Path, tmp_path: Path) -> None:
    error, _ = refusal(export(run, "--to", tmp_path / "copy", "--private"))
    assert "--private is for the Hub" in error
    assert not (tmp_path / "copy").exists()


def test_run_that_is_not_there_names_those_that_are(run: Path, tmp_path: Path) -> None:
    error, fix = refusal(export(run.parent / "samsun", "--to", tmp_path / "copy"))
    assert "there is no sweep in" in error
    assert str(run) in fix


@pytest.mark.parametrize("lost", ["README.md", "adapter_model.safetensors"])
def test_best_that_lacks_a_file_says_how_to_go_on(run: Path, tmp_path: Path, lost: str) -> None:
    (run / "best" / lost).unlink()
    error, fix = refusal(export(run, "--to", tmp_path / "copy"))
    assert f"lacks {lost}" in error and "--resume" in fix


@pytest.mark.parametrize("flags", [(), ("--merge",)])
def test_damaged_adapter_is_not_exported(run: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    weights = run / "best/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    error, fix = refusal(export(run, "--to", tmp_path / "copy", *flags))
    assert f"the adapter in {run / 'best'} is damaged" in error and "copy it here again" in fix
    assert not (tmp_path / "copy").exists()


def test_help_says_where_an_adapter_can_go() -> None:
    ended = export("--help")
    assert ended.code == 0 and "hub:USER/NAME" in ended.stdout


def test_rows_of_the_data_stay_in_the_run(
    run: Path, checkpoint: Path, hub: HubServer, tmp_path: Path
) -> None:
    files = {"test_predictions.jsonl": '{"prompt": "private"}\n', "confusion.csv": "target\n"}
    base = str(MODEL_DIR)
    write_folder(run / "best", checkpoint, facts(base_model=base), files)
    for name, content in files.items():
        assert (run / "best" / name).read_text() == content
    copied = export(run, "--to", tmp_path / "copy")
    sent = export(run, "--to", f"hub:{REPO}", endpoint=hub.url)
    assert copied.code == sent.code == 0, copied.stderr + sent.stderr
    (commit,) = hub.repos[REPO].commits
    for names in (contents(tmp_path / "copy").keys(), commit.files.keys()):
        assert "confusion.csv" in names and "test_predictions.jsonl" not in names


@pytest.mark.parametrize("way", ["folder", "hub"])
def test_only_known_files_leave_the_run(
    run: Path, hub: HubServer, tmp_path: Path, way: str
) -> None:
    best = run / "best"
    known = contents(best).keys()
    (best / "notes.txt").write_text("mine")
    (best / "link.txt").symlink_to(run / "sweep.json")  # one that leads out is refused
    (best / "inside").mkdir()
    (best / "inside" / "config.json").write_text("{}")
    (best / "elsewhere").symlink_to(run)
    to = tmp_path / "copy" if way == "folder" else f"hub:{REPO}"
    assert export(run, "--to", to, endpoint=hub.url).code == 0
    sent = contents(to) if way == "folder" else hub.repos[REPO].commits[0].files
    assert sent.keys() == known


@pytest.mark.parametrize("name", ["README.md", "vocab.json", "model-00001-of-00002.safetensors"])
def test_links_in_place_of_known_files_are_refused(
    run: Path, hub: HubServer, tmp_path: Path, name: str
) -> None:
    secret = run / "secret"  # out of the run no command follows a link
    secret.write_bytes((run / "best" / "README.md").read_bytes())
    (run / "best" / name).unlink(missing_ok=True)
    (run / "best" / name).symlink_to(secret)
    for to in (tmp_path / "copy", f"hub:{REPO}"):
        error, fix = refusal(export(run, "--to", to, endpoint=hub.url))
        assert f"{name} is no plain file but a link" in error
        assert "the file itself" in fix
    assert not (tmp_path / "copy").exists()
    assert hub.calls == []


@pytest.mark.slow
def test_printed_command_exports_from_a_folder_of_any_name(run: Path, tmp_path: Path) -> None:
    folder = (
        tmp_path
        / """-it's  "my" $HOME `x` \x1b[2J
*?%20"""
    )
    folder.mkdir()
    moved = shutil.copytree(run, folder / run.name)
    trials = [make_history(1, "completed", (9, 41.5))]
    scores = {split: {"rougeLsum": 1.0} for split in ("validation", "test")}
    outcome = Outcome(winner=Winner(run=trials[0], tested={}), scores=scores, runs={})
    text = describe(make_config(), RunPaths(moved), trials, METRIC, outcome)
    (line,) = [line for line in text.splitlines() if line.startswith("publish: ")]
    words = line.removeprefix("publish: python ").replace("hub:USER/NAME", "copy")
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} {words}"], cwd=tmp_path, env=world(tmp_path)
    )
    assert ended.returncode == 0
    assert (tmp_path / "copy" / "adapter_config.json").is_file()
