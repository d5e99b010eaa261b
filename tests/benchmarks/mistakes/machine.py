"""Folders that cannot be written, full disks, and environments that no command can use."""

from collections.abc import Mapping

from tests.benchmarks.mistakes.damage import Damage, link, make_folder, make_pipe, write
from tests.benchmarks.mistakes.mistake import Mistake
from tests.benchmarks.mistakes.storages import FULL, READ_ONLY

TINY = "sweeps.run samsum --tiny"
SWEEP = f"{TINY} --name night"
FROM_HUB = f"{TINY} --model Qwen/Qwen3-0.6B"
ONLINE = f"{SWEEP} --wandb online"
MLFLOW = f"{SWEEP} --track mlflow"


PLACES: list[tuple[str, str, Damage | None, str, str]] = [
    ("runs/ is a file", SWEEP, write("runs", "in the way"), "", "runs"),
    ("runs/ is a pipe", SWEEP, make_pipe("runs"), "", "runs"),
    ("runs/ is a link to itself", SWEEP, link("runs", "runs"), "", "runs"),
    ("runs/ is a link to nothing", SWEEP, link("runs", "gone/away"), "", "runs"),
    ("the name is taken", SWEEP, make_folder("runs/night"), "", "night"),
    ("the name is too long", f"{TINY} --name {'n' * 300}", None, "", "name"),
    ("--runs-dir is read-only", f"{SWEEP} --runs-dir /mnt/runs", None, READ_ONLY, "/mnt/runs"),
    ("--runs-dir is on a full disk", f"{SWEEP} --runs-dir /mnt/runs", None, FULL, "/mnt"),
    ("--runs-dir is in /proc", f"{SWEEP} --runs-dir /proc/runs", None, "", "/proc/runs"),
    ("--runs-dir is a device", f"{SWEEP} --runs-dir /dev/null", None, "", "/dev/null"),
    ("a dry run in a folder that is a file", f"{SWEEP} --dry-run", write("runs", "x"), "", "runs"),
    ("a copy onto a file", "sweeps.export runs/base --to x", write("x", "x"), "", "runs/base"),
    (
        "a launch file in a read-only folder",
        "cluster.launch slurm --template /mnt samsum --dry-run",
        None,
        "",
        "/mnt",
    ),
]
"""What is wrong, the command, what lies there, what is mounted, and what the error has to name."""

VALUES: list[tuple[str, str, Mapping[str, str], str]] = [
    ("a dead Ray cluster", SWEEP, {"RAY_ADDRESS": "127.0.0.1:9"}, "127.0.0.1:9"),
    ("a Ray address that is none", SWEEP, {"RAY_ADDRESS": "somewhere"}, "somewhere"),
    ("an address of Ray Client", SWEEP, {"RAY_ADDRESS": "ray://127.0.0.1:10001"}, "ray://"),
    ("a Ray port that is none", SWEEP, {"RAY_ADDRESS": "127.0.0.1:99999"}, "127.0.0.1:99999"),
    ("auto without a cluster", SWEEP, {"RAY_ADDRESS": "auto"}, "RAY_ADDRESS=auto"),
    ("a Ray cluster of another host", SWEEP, {"RAY_ADDRESS": "192.0.2.1:6379"}, "192.0.2.1:6379"),
    ("a dead cluster to check", "cluster.check", {"RAY_ADDRESS": "127.0.0.1:9"}, "127.0.0.1:9"),
    ("a nonsense cluster to check", "cluster.check", {"RAY_ADDRESS": "x y"}, "x y"),
    (
        "Ray's folder too deep for sockets",
        SWEEP,
        {"RAY_TMPDIR": "/tmp/" + "deep/" * 30},
        "/tmp/deep",
    ),
    ("Ray's folder is a file", SWEEP, {"RAY_TMPDIR": "/etc/passwd"}, "/etc/passwd"),
    (
        "W&B's address is no URL",
        ONLINE,
        {"WANDB_BASE_URL": "wandb.example", "WANDB_API_KEY": "a" * 40},
        "WANDB_BASE_URL",
    ),
    ("W&B without a login", ONLINE, {}, "login"),
    ("a key of W&B that is too short", ONLINE, {"WANDB_API_KEY": "abc"}, "WANDB_API_KEY"),
    ("a mode of W&B that is none", SWEEP, {"WANDB_MODE": "sometimes"}, "WANDB_MODE"),
    ("the Hub's address is no URL", FROM_HUB, {"HF_ENDPOINT": "hub"}, "Qwen/Qwen3-0.6B"),
    ("the Hub is switched off", FROM_HUB, {"HF_HUB_OFFLINE": "1"}, "Qwen/Qwen3-0.6B"),
    (
        "MLflow's server does not answer",
        MLFLOW,
        {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        "127.0.0.1:9",
    ),
    ("MLflow's address is none", MLFLOW, {"MLFLOW_TRACKING_URI": "nowhere://x"}, "nowhere://x"),
    ("GPUs that are not there", "sweeps.run samsum", {"CUDA_VISIBLE_DEVICES": "7"}, "GPU"),
    ("GPUs that are no numbers", "sweeps.run samsum", {"CUDA_VISIBLE_DEVICES": "all"}, "GPU"),
    ("a sweep without a GPU", "sweeps.run turkish_youtube", {}, "GPU"),
    ("a trial without a GPU", "sweeps.trial samsum", {}, "GPU"),
    (
        "no folder for temporary files",
        SWEEP,
        {"TMPDIR": "/gone", "RAY_ADDRESS": "127.0.0.1:9"},
        "127.0.0.1:9",
    ),
    (
        "a home that is not there",
        FROM_HUB,
        {"HOME": "/gone", "HF_HOME": "/gone/hf"},
        "Qwen/Qwen3-0.6B",
    ),
    (
        "a home that is a file",
        FROM_HUB,
        {"HOME": "/etc/passwd", "HF_HOME": "/etc/passwd/hf"},
        "Qwen/Qwen3-0.6B",
    ),
    (
        "a terminal of ASCII alone",
        f"{TINY} --data größe.csv",
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "gr",
    ),
    (
        "a terminal of an unknown encoding",
        "sweeps.run samsun",
        {"LC_ALL": "xx_YY.utf9", "LANG": "xx"},
        "samsun",
    ),
    ("a terminal of no width", f"{TINY} --num-trails 3", {"COLUMNS": "0"}, "--num-trails"),
    ("a terminal of one column", f"{TINY} --num-trials x", {"COLUMNS": "1"}, "--num-trials"),
    ("colours forced", f"{TINY} --num-trials x", {"FORCE_COLOR": "1"}, "--num-trials"),
]
"""What is wrong, the command, the variables of its environment, and what the error has to name."""

MISTAKES = [
    *(
        Mistake(
            kind="machine",
            title=title,
            command=command,
            prepare=prepare,
            mounts=mounts,
            named=named,
        )
        for title, command, prepare, mounts, named in PLACES
    ),
    *(
        Mistake(kind="machine", title=title, command=command, environment=environment, named=named)
        for title, command, environment, named in VALUES
    ),
    *(
        Mistake(
            kind="machine",
            title=f"{variable} is on a full disk",
            command=SWEEP + " --num-trials 0",
            mounts=FULL,
            environment={variable: "/mnt"},
            named="--num-trials",
        )
        for variable in ("HOME", "TMPDIR", "HF_HOME")
    ),
]
