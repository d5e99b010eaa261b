"""Flags and words of every command: their type, range, combination and spelling."""

import shlex

from tests.benchmarks.mistakes.mistake import Mistake
from tests.sweeps.bad_values import BAD_HYPERPARAMETERS, BAD_VALUES, UNREADABLE

RUN_FLAGS = [
    ("--epochs 0", "epochs"),
    ("--epochs 2 --max-steps 5", "--epochs and --max-steps"),
    ("--time-budget soon", "--time-budget"),
    ("--time-budget 0s", "--time-budget"),
    ("--gpu-hours -1", "--gpu-hours"),
    ("--gpu-hours nan", "--gpu-hours"),
    ("--low-rung-eval-rows 0", "--low-rung-eval-rows"),
    ("--num-finalists 0", "--num-finalists"),
    ("--num-final-seeds 0", "--num-final-seeds"),
    ("--num-rungs 9 --max-steps 3", "--num-rungs"),
    ("--num-finalists 9 --num-trials 3", "--num-finalists"),
    ("--no-finals --num-final-seeds 3", "--finals"),
    ("--eval-rows 8 --low-rung-eval-rows 9", "--low-rung-eval-rows"),
    ("--bertscore-layer 3", "--bertscore"),
    ("--sampler cma", "--sampler"),
    ("--bertscore maybe", "--bertscore"),
    ("--bertscore on --bertscore-layer 0", "--bertscore-layer"),
    ("--bertscore on --bertscore-encoder nobody/nothing", "nobody/nothing"),
    ("--track wandb,mlfow", "mlfow"),
    ("--track none,wandb", "none"),
    ("--wandb-project a/b", "a/b"),
    ("--metric rougeLsums", "rougeLsums"),
    ("--metric accuracy", "accuracy"),
    ("--metric score.py:measure", "score.py"),
    ("--metric evaluate:no_such_metric", "no_such_metric"),
    ("--metric rougeLsum --metric-mode max", "--metric-mode"),
    ("--metric-mode upwards", "--metric-mode"),
    ("--prompt 'Say {nothing}'", "nothing"),
    ("--prompt 'Say {dialogue'", "prompt"),
    ("--prompt ''", "prompt"),
    ("--input dialogue", "--input"),
    ("--label-names 0=bad", "label-names"),
    ("--balance oversample", "balance"),
    ("--train-on last", "train-on"),
    ("--language klingon", "--language"),
    ("--kind poem", "--kind"),
    ("--resume", "--name"),
    ("--tiny=yes", "yes"),
    ("--engine solo --slots-per-gpu many", "--slots-per-gpu"),
    ("--max-length-tokens 100000000", "--max-length-tokens"),
]
"""After sweeps.run samsum --tiny."""

OTHERS = [
    ("sweeps.verify", "RUN"),
    ("sweeps.verify runs/none", "TRIAL"),
    ("sweeps.verify runs/none t0000", "runs/none"),
    ("sweeps.verify runs/none t0000 --num-seeds 1", "--num-seeds"),
    ("sweeps.verify runs/none t0000 --weight", "--weight"),
    ("sweeps.export", "--to"),
    ("sweeps.export runs/none", "--to"),
    ("sweeps.export runs/none --to hub:name", "hub:name"),
    ("sweeps.export runs/none --to ''", "--to"),
    ("sweeps.export runs/none --to out --lisence mit", "--lisence"),
    ("sweeps.report", "no run"),
    ("sweeps.report runs/none", "runs/none"),
    ("sweeps.report runs/none runs/none", "twice"),
    ("sweeps.report runs/none --output", "--output"),
    ("sweeps.report runs/none --outptu page.html", "--outptu"),
    ("sweeps.predict runs/none --output out.csv", "--input"),
    ("sweeps.predict runs/none --input in.csv", "--output"),
    ("sweeps.predict runs/none --input in.csv --output out.csv", "runs/none"),
    ("sweeps.predict runs/none --input in.csv --output out.csv --batch-size 0", "--batch-size"),
    ("sweeps.predict runs/none --input in.csv --output out.csv --skip-rows -1", "--skip-rows"),
    ("sweeps.status runs/none", "runs/none"),
    ("sweeps.status", "runs"),
    ("sweeps.status runs --wach", "--wach"),
    ("sweeps.ask", "PATH"),
    ("sweeps.ask runs/none --finish", "runs/none"),
    ("sweeps.ask runs/none", "nothing is asked"),
    ("sweeps.sync", "PATH"),
    ("sweeps.sync runs/none", "runs/none"),
    ("sweeps.sync runs/none --track comet", "comet"),
    ("sweeps.sync runs/none --wandb disabled", "--wandb"),
    ("sweeps.demo", "PATH"),
    ("sweeps.demo runs/none", "runs/none"),
    ("sweeps.demo runs/none --port 99999", "port"),
    ("sweeps.demo runs/none --examples -1", "examples"),
    ("sweeps.judge runs/none --model m", "--endpoint"),
    ("sweeps.judge runs/none --endpoint http://127.0.0.1:9/v1", "--model"),
    ("sweeps.judge runs/none --endpoint 127.0.0.1:9 --model m", "127.0.0.1:9"),
    ("sweeps.judge runs/none --endpoint http://127.0.0.1:9/v1 --model m", "runs/none"),
    ("sweeps.judge runs/none --endpoint http://x/v1 --model m --num-rows 0", "--num-rows"),
    ("sweeps.judge runs/none --endpoint http://x/v1 --model m --concurrency 0", "concurrency"),
    ("sweeps.judge runs/none --endpoint http://x/v1 --model m --max-retries -1", "--max-retries"),
    ("sweeps.judge runs/none --endpoint http://x/v1 --model m --timeout-s 0", "--timeout-s"),
    ("sweeps.judge runs/none --endpoint http://x/v1 --model m --max-tokens 0", "--max-tokens"),
    ("sweeps.judge runs/none --endpoint http://x/v1 --model m --temperature hot", "--temperature"),
    ("cluster.check --runs-dri runs", "--runs-dri"),
    ("cluster.launch", "slurm"),
    ("cluster.launch slrum samsum", "slrum"),
    ("cluster.launch slurm", "RECIPE"),
    ("cluster.launch slurm --nodes 0 samsum --dry-run", "--nodes"),
    ("cluster.launch slurm --nodes two samsum --dry-run", "--nodes"),
    ("cluster.launch slurm --set time samsum --dry-run", "--set"),
    ("cluster.launch slurm --template none.sh samsum --dry-run", "none.sh"),
    ("cluster.launch kuberay --set colour=red samsum --dry-run", "colour"),
    ("cluster.launch kuberay samsum --name 'a b' --dry-run", "a b"),
    ("cluster.launch ray samsum", "hosts"),
    ("cluster.launch sky --gpus-per-node -1 samsum --dry-run", "--gpus-per-node"),
    ("cluster.launch sky samsum --dry-run", "image"),
    ("sweeps-run samsun", "samsun"),
    ("sweeps-export runs/none", "--to"),
]
"""Commands that need no run to see what is wrong."""


def _list_values() -> list[tuple[str, str]]:
    """Those that the quick tests make in one process; here one value of each flag's range."""
    values = [(flags, named) for flags, named in BAD_VALUES if flags[1:] != ["-1"]]
    commands = [(f"sweeps.run samsum --tiny {shlex.join(flags)}", named) for flags, named in values]
    commands += [
        (f"sweeps.trial samsum --tiny {shlex.join(flags)}", named)
        for flags, named in BAD_HYPERPARAMETERS
    ]
    tiny = {"--model": ["--tiny"]}
    commands += [
        (f"sweeps.run {shlex.join([*words, *tiny.get(''.join(words[1:2]), [])])}", error)
        for words, error, _ in UNREADABLE
    ]
    commands += [(f"sweeps.run samsum --tiny {flags}", named) for flags, named in RUN_FLAGS]
    return commands + OTHERS


MISTAKES = [
    Mistake(kind="command line", title=f"{named} is wrong", command=command, named=named)
    for command, named in _list_values()
]
