"""Launch files are what each cluster's program takes, and the sweep gets its flags unchanged."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster import launch

SETTINGS = {
    "slurm": ["time=12:00:00", "comment=two words"],
    "kuberay": ["image=registry/qlora-sweeps", "volume=runs"],
    "ray": ["hosts=10.0.0.1,10.0.0.2", "user=me"],
    "sky": ["image=registry/qlora-sweeps", "gpu=H100", "volume=runs"],
}
FLAGS = ["--data", "it's $HOME/rows.csv", "--input", 'a "b"\n# c: d', "--name", "run.1"]
RAY = find_spec("ray")  # which is not loaded
assert RAY and RAY.origin
SCHEMA = Path(RAY.origin).parent / "autoscaler" / "ray-schema.json"
README = Path(launch.__file__).parent / "README.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; `python` there prints its words."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    python.chmod(0o755)
    monkeypatch.setenv("PATH", str(python.parent), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def render(kind: str, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    settings = [word for setting in SETTINGS[kind] for word in ("--set", setting)]
    launch.main([kind, *settings, *words, "--dry-run"])
    return capsys.readouterr().out


def find_command(kind: str, text: str, folder: Path) -> str:
    """The shell's line that starts the sweep."""
    if kind == "kuberay":
        return str(next(yaml.safe_load_all(text))["data"]["run.sh"])
    if kind == "ray":
        for command in yaml.safe_load(text)["head_setup_commands"]:
            subprocess.run(["bash", "-c", command], check=True)
        return (folder / "sweep.sh").read_text()
    script = yaml.safe_load(text)["run"] if kind == "sky" else text
    command = script[script.index("-m sweeps.run") :]
    return f"python {command.partition(' && echo --resume)')[0]} && echo --resume)"


@pytest.mark.parametrize("kind", launch.KINDS)
def test_flags_reach_the_sweep_as_they_were_given(
    kind: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    python = [] if kind in ("kuberay", "sky") else ["--set", f"python={folder}/bin/python"]
    words = [*python, "own.py", *FLAGS, "--runs-dir", str(folder / "my runs")]
    command = find_command(kind, render(kind, capsys, *words), folder)
    sent = ["-m", "sweeps.run", "own.py", *FLAGS, "--runs-dir", f"{folder}/my runs"]

    def run() -> list[str]:
        shell = ["bash", "-c", command]
        output = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
        return output.split("\0")[:-1]

    assert run() == sent
    (folder / "my runs" / "run.1").mkdir(parents=True)
    (folder / "my runs" / "run.1" / "sweep.json").touch()
    assert run() == [*sent, "--resume"]


@pytest.mark.parametrize("kind", launch.KINDS)
def test_no_file_holds_a_token(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", *launch.TOKENS):
        monkeypatch.setenv(name, f"secret of {name}")
    text = render(kind, capsys, "samsum")
    assert "sweeps.run" in text and "secret of" not in text


def test_slurm_reads_every_option_from_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    text = render("slurm", capsys, "--nodes", "2", "--gpus-per-node", "8", "samsum", "--name", "a")
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    head, _, body = text.partition("\n\n")
    options = dict(
        re.fullmatch(r"#SBATCH --([a-z-]+)=?(.*)", line).groups()  # type: ignore[union-attr]
        for line in head.splitlines()
        if line.startswith("#SBATCH")
    )
    assert {"nodes": "2", "gpus-per-node": "8", "time": "12:00:00"}.items() <= options.items()
    assert {
        "requeue": "",
        "signal": "B:USR1@120",
        "comment": "'two words'",
    }.items() <= options.items()
    assert "#SBATCH" not in body
    assert options["cpus-per-task"] == "32"
    text = render("slurm", capsys, "--set", "cpus-per-task=3", "samsum")
    assert re.findall("cpus-per-task=(.*)", text)[0] == "3"


def test_slurm_takes_options_without_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    lines = render("slurm", capsys, "--set", "exclusive=", "samsum").splitlines()
    assert "#SBATCH --exclusive" in lines and "#SBATCH --time=12:00:00" in lines


def test_a_run_in_the_home_is_gone_on_with(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "runs" / "a").mkdir(parents=True)
    (folder / "runs" / "a" / "sweep.json").touch()
    python = f"python={folder}/bin/python"
    words = ["--set", python, "samsum", "--name", "a", "--runs-dir=~/runs"]
    command = find_command("slurm", render("slurm", capsys, *words), folder)
    output = subprocess.check_output(["bash", "-c", command], text=True)
    assert output.split("\0")[-2] == "--resume"


@pytest.mark.parametrize("traps", ["", "trap 'exit 130' TERM"], ids=("loading", "training"))
def test_slurm_job_whose_time_is_up_goes_back_into_the_queue(
    traps: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """The sweep ends by SIGTERM, whether it has begun to heed it or not. It begins within seconds
    where Ray has ended, for which a job waits two minutes otherwise."""
    begins = f"{traps}\ntouch begun; while sleep 0.1; do :; done"
    programs = {"srun": "exit 1", "scontrol": 'echo "$@" >queued'}
    programs["python"] = f'case "$*" in *sweeps.run*) {begins};; esac'
    for name, text in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    script = render("slurm", capsys, "--set", f"python={folder}/bin/python", "samsum")
    names = ("JOB_NAME", "NNODES", "CPUS_PER_TASK")
    env = os.environ | {f"SLURM_{name}": "1" for name in names} | {"SLURM_JOB_ID": "17"}
    job = subprocess.Popen(["bash", "-c", script], env=env)
    deadline_s = time.monotonic() + 60
    while not (folder / "begun").exists():
        assert job.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == 0
    assert (folder / "queued").read_text() == "requeue 17\n"


def test_ray_up_accepts_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load(render("ray", capsys, "samsum"))
    schema = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))
    schema.validate(config)
    assert config["provider"]["worker_ips"] == ["10.0.0.2"] and config["max_workers"] == 1
    assert not schema.is_valid(config | {"max_wokers": 1})


def test_ray_up_copies_no_login_but_the_hubs_and_tokens_that_were_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (".netrc", ".cache/huggingface/token", "tokens"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("WANDB_API_KEY=key\n")
    config = yaml.safe_load(render("ray", capsys, "samsum"))
    logins = {name: name for name in ("~/.ray/auth_token", "~/.cache/huggingface/token")}
    assert config["file_mounts"] == logins
    python = folder / "bin" / "python"
    python.write_text("#!/bin/sh\necho $WANDB_API_KEY\n")
    shutil.copy(python, folder / "bin" / "ray")
    words = ["--set", f"tokens={folder}/tokens", "--set", f"python={python}", "samsum"]
    text = render("ray", capsys, *words)
    config = yaml.safe_load(text)
    assert config["file_mounts"] == {**logins, "~/.sweep-tokens": f"{folder}/tokens"}
    (folder / "tokens").rename(folder / ".sweep-tokens")
    for command in (
        find_command("ray", text, folder),
        config["worker_start_ray_commands"][-1],
        config["head_start_ray_commands"][-1],
    ):
        assert subprocess.check_output(["bash", "-c", command], text=True) == "key\n"


def test_rayjob_has_what_kuberay_documents(capsys: pytest.CaptureFixture[str]) -> None:
    """The keys are those of KubeRay's reference of ray.io/v1; the laboratory checks the pods."""
    text = render(
        "kuberay", capsys, "--nodes", "3", "--gpus-per-node", "8", "samsum", "--name", "A_1.b"
    )
    config_map, job = yaml.safe_load_all(text)
    assert config_map["metadata"]["name"] == job["metadata"]["name"] == "sweep-a-1-b"
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec: dict[str, Any] = job["spec"]
    assert spec.keys() <= {
        "entrypoint",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "rayClusterSpec",
    }
    cluster = spec["rayClusterSpec"]
    assert cluster.keys() == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["rayVersion"] == version("ray") and cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    (workers,) = cluster["workerGroupSpecs"]
    replicas = {"replicas": 3, "minReplicas": 3, "maxReplicas": 3}
    assert replicas.items() <= workers.items()
    assert workers.keys() - replicas == {"groupName", "rayStartParams", "template"}
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8


def test_sky_keeps_runs_in_a_volume_or_a_bucket(capsys: pytest.CaptureFixture[str]) -> None:
    task = yaml.safe_load(render("sky", capsys, "--nodes", "2", "samsum"))
    assert task["num_nodes"] == 2 and task["resources"]["accelerators"] == "H100:1"
    assert task["volumes"] == {"/runs": "runs"} and "file_mounts" not in task
    task = yaml.safe_load(render("sky", capsys, "--set", "bucket=s3://mine", "samsum"))
    assert task["file_mounts"]["/runs"]["source"] == "s3://mine" and "volumes" not in task


MISTAKES = [
    [],
    ["slurm"],
    ["slrum", "samsum"],
    ["slurm", "--nodes", "x", "samsum"],
    ["slurm", "--nodes", "0", "samsum"],
    ["slurm", "--gpus-per-node", "-1", "samsum"],
    ["slurm", "--gpus", "1", "samsum"],
    ["slurm", "--set", "partition", "samsum"],
    ["slurm", "--set", "a=b\nc", "samsum"],
    ["slurm", "--set", "name=other", "samsum"],
    ["slurm", "--template", "nowhere", "samsum"],
    ["slurm", "samsum", "--name"],
    ["slurm", "samsum", "--name", "../a"],
    ["ray", "--set", "user=me", "samsum"],
    ["ray", "--set", "user=me", "--set", "hosts=a", "--set", "tokens=nowhere", "samsum"],
    ["kuberay", "--set", "image=a", "samsum"],
    ["sky", "--set", "image=a", "--set", "gpu=H100", "samsum"],
    ["sky", "--set", "imgae=a", "samsum"],
]


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_mistakes_are_two_lines(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        launch.main([*words, "--dry-run"] if words[1:] else words)
    error, fix = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and error.startswith("error: ") and fix.startswith("fix: ")


def test_a_broken_template_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.sh").write_text("{% if %}")
    with pytest.raises(SystemExit):
        launch.main(["slurm", "--template", "mine.sh", "samsum", "--dry-run"])
    assert capsys.readouterr().err.startswith("error: the template mine.sh cannot be used")


def test_own_template_and_submission(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (folder / "mine.yaml").write_text("{{ name }} on {{ nodes }} of {{ color }}\n")
    for name in ("sky", "kubectl"):
        (folder / "bin" / name).write_text(f'#!/bin/sh\necho {name} $RAY_AUTH_TOKEN "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    own = ["--template", "mine.yaml", "--nodes", "2", "--set", "color=red"]
    launch.main(["kuberay", *own, "samsum", "--name", "a"])
    file = folder / "a.kuberay.yaml"
    assert file.read_text() == "a on 2 of red\n" and file.stat().st_mode & 0o077 == 0
    assert capfd.readouterr().out.splitlines()[-1] == "kubectl create -f a.kuberay.yaml"
    monkeypatch.setenv("HF_TOKEN", "mine")
    launch.main(["sky", *own, "samsum", "--name", "a"])
    _, token, *words = capfd.readouterr().out.splitlines()[-1].split()
    assert len(token) == 64 and words[:3] == ["jobs", "launch", "--yes"]
    assert words[3:] == ["--secret=RAY_AUTH_TOKEN", "--secret=HF_TOKEN", "a.sky.yaml"]


def test_ray_of_this_environment_is_used_where_no_shell_has_activated_it(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = folder / "environment" / "ray"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho ray "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    launch.main(["ray", "--set", "hosts=10.0.0.1", "--set", "user=me", "samsum", "--name", "a"])
    assert capfd.readouterr().out.endswith("ray exec --tmux a.ray.yaml bash ~/sweep.sh\n")


@pytest.mark.slow
def test_slurm_gets_no_job_whose_flags_are_wrong(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "bin" / "sbatch").write_text("#!/bin/sh\necho submitted\n")
    (folder / "bin" / "sbatch").chmod(0o755)
    with pytest.raises(SystemExit) as ended:
        launch.main(["slurm", "samsum", "--tiny", "--learning-rate", "1"])
    captured = capfd.readouterr()
    assert ended.value.code == 2 and captured.err.startswith("error: ")
    assert "submitted" not in captured.out and not list(folder.glob("*.sh"))


@pytest.mark.slow
def test_slurm_job_does_not_ask_for_gpus_of_this_machine(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    for name, text in (("sbatch", "submitted"), ("nvidia-smi", "GPU-a1, Tesla T4, 15360, 7.5")):
        (folder / "bin" / name).write_text(f"#!/bin/sh\necho {text}\n")
        (folder / "bin" / name).chmod(0o755)
    launch.main(["slurm", "samsum", "--tiny", "--gpus", "8", "--compute-dtype", "bfloat16"])
    assert capfd.readouterr().out.endswith("submitted\n")


def test_the_image_finds_the_version_of_torch() -> None:
    containerfile = (launch.TEMPLATES / "Containerfile").read_text()
    command = re.search(r"\$\((sed .*? Makefile)\)", containerfile)
    assert command
    found = subprocess.check_output(command[1], shell=True, cwd=launch.PROJECT, text=True)
    assert re.fullmatch(r"torch==[\d.]+\n", found)


def test_commands_of_the_readme_render(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^python -m cluster\.launch (.*)", README.read_text(), re.MULTILINE)
    assert {command.split()[0] for command in commands} == set(launch.KINDS)
    for command in commands:
        launch.main([*shlex.split(command, comments=True), "--dry-run"])
        assert capsys.readouterr().out
