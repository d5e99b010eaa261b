"""python -m cluster.launch slurm|kuberay|ray|sky RECIPE [flags]: starts a sweep on a cluster.

A template becomes a file in the current folder, which the cluster's own program takes as it stands.
No token is ever written into it.
"""

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import jinja2
import jinja2.meta

from cluster.command_line import Parser, abort

PROG = "python -m cluster.launch"
PROJECT = Path(__file__).resolve().parent.parent
TEMPLATES = Path(__file__).resolve().parent / "templates"
KINDS = {"slurm": "slurm.sh", "kuberay": "kuberay.yaml", "ray": "ray.yaml", "sky": "sky.yaml"}
"""The template of each kind of cluster."""
HAS_OUR_FILES = ("slurm", "ray")
"""Kinds whose nodes see the folders of this machine."""
OF_SWEEP = {"name", "nodes", "gpus_per_node", "command", "settings"}
"""Variables of a template that --set cannot change."""
LOGIN = "~/.cache/huggingface/token"
"""What `hf auth login` writes; `ray up` copies it to the nodes, if it is here."""
TOKENS = ("HF_TOKEN", "WANDB_API_KEY")
"""Variables of the environment that SkyPilot gives the nodes, with one token more, for Ray."""


def main(argv: Sequence[str] | None = None) -> None:
    """Renders a sweep's launch file; prints it with --dry-run, else submits it."""
    args = _parse_args(sys.argv[1:] if argv is None else argv)
    template = Path(args.template or TEMPLATES / KINDS[args.kind])
    sweep = {name: value for name, value in vars(args).items() if name in OF_SWEEP}
    text = render(template, args.settings, sweep)
    if args.is_dry:
        print(text, end="")
        return
    file = f"{args.name}.{KINDS[args.kind]}"
    submit = list_commands(args.kind, file)
    beside = str(Path(sys.executable).parent)  # Ray's program, also where no shell has activated it
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), beside])
    if not shutil.which(submit[-1][0]):
        fix = "run this where it is installed, or add --dry-run and submit what is printed"
        abort(f"{submit[-1][0]} is not installed here", fix)
    if args.kind == "slurm":  # nobody wants to learn of a wrong flag when the job's turn comes
        check = f"{shlex.quote(sys.executable)} {args.command} --dry-run >/dev/null"
        elsewhere = os.environ | {"CUDA_VISIBLE_DEVICES": "", "RAY_ADDRESS": "local"}
        if code := subprocess.run(check, shell=True, env=elsewhere, check=False).returncode:
            sys.exit(code)
    Path(file).touch(mode=0o600)  # flags may hold a database's password
    Path(file).write_text(text, encoding="utf-8")
    fresh = {"RAY_AUTH_TOKEN": secrets.token_hex(32)} if args.kind == "sky" else {}
    for command in submit:
        print(f"+ {shlex.join(command)}", flush=True)
        if code := subprocess.run(command, env=os.environ | fresh, check=False).returncode:
            abort(f"{command[0]} ended with {code}", f"see above; it was given {file}")


def _parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Options of the cluster stand before RECIPE, flags of sweeps.run after it."""
    parser = Parser(prog=PROG, description=(__doc__ or "").partition(": ")[2], allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="|".join(KINDS))
    for kind, template in KINDS.items():
        names = find_variables(TEMPLATES / template)
        one = kinds.add_parser(
            kind,
            usage=f"{PROG} {kind} [options] RECIPE [flags]",
            description="Options stand before RECIPE; all after it is given to sweeps.run. "
            f"Names for --set: {', '.join(sorted(names - OF_SWEEP))}"
            + (", and any option of sbatch, e.g. time=12:00:00." if kind == "slurm" else "."),
            allow_abbrev=False,
        )
        for flag in ("nodes", "gpus_per_node"):
            if flag in names:
                dashed = f"--{flag.replace('_', '-')}"
                one.add_argument(dashed, type=int, default=1, help="1 if not given")
        one.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="repeat")
        one.add_argument("--template", metavar="FILE", help=f"your copy of {TEMPLATES / template}")
        one.add_argument("--dry-run", action="store_true", help="print the file, submit nothing")
        one.add_argument("recipe", metavar="RECIPE")
        one.add_argument(
            "flags", nargs=argparse.REMAINDER, metavar="[flags]", help=argparse.SUPPRESS
        )
    args = parser.parse_args(argv)
    if min(getattr(args, "nodes", 1), getattr(args, "gpus_per_node", 0) + 1) < 1:
        parser.error("--nodes is 1 at least, and --gpus-per-node 0")
    args.settings = dict(map(_split_setting, args.set))
    args.is_dry = args.dry_run or "--dry-run" in args.flags
    args.name, args.command = _read_flags(args)
    return args


def _split_setting(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and text.isprintable()):
        abort(f"--set {text!r}", "--set NAME=VALUE, all in one line")
    return name, value


def _read_flags(args: argparse.Namespace) -> tuple[str, str]:
    """The sweep's name, and what follows `python` in a shell.

    The command begins the sweep, or goes on with it if its folder is there.
    """
    flags = [flag for flag in args.flags if flag not in ("--dry-run", "--resume")]
    parser = Parser(prog=PROG, add_help=False, allow_abbrev=False)
    parser.add_argument("--name")
    parser.add_argument("--runs-dir", "--runs_dir", dest="runs_dir")
    options, _ = parser.parse_known_args(flags)
    stem = Path(args.recipe).stem.replace("_", "-")
    name = options.name or f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        abort(f"--name {name!r}", "begin with a letter or digit; then also '.', '_' and '-'")
    runs_dir = options.runs_dir or (
        os.path.abspath("runs") if args.kind in HAS_OUR_FILES else "/runs"
    )
    words = [args.recipe, *flags]
    words += [] if options.name else ["--name", name]
    words += [] if options.runs_dir else ["--runs-dir", runs_dir]
    sweep_json = shlex.quote(os.path.expanduser(f"{runs_dir}/{name}/sweep.json"))
    resume = f"$(test -e {sweep_json} && echo --resume)"
    return name, f"-m sweeps.run {shlex.join(words)} {resume}"


def find_variables(template: Path) -> set[str]:
    """The variables that a template uses."""
    syntax = _make_environment().parse(template.read_text(encoding="utf-8"))
    return jinja2.meta.find_undeclared_variables(syntax)


def render(template: Path, settings: Mapping[str, str], sweep: Mapping[str, object]) -> str:
    """The text of a launch file.

    Args:
        settings: what --set says. Those that the template does not name are in its `settings`.
        sweep: the values of OF_SWEEP, but for `settings`.
    """
    try:
        names = find_variables(template)
        others = {name: value for name, value in settings.items() if name not in names}
        if refused := settings.keys() & OF_SWEEP or ("settings" not in names and others.keys()):
            known = ", ".join(sorted(names - OF_SWEEP))
            abort(f"{template.name} takes no --set {min(refused)}", f"its names are {known}")
        variables: dict[str, object] = {
            "python": sys.executable,
            "project": str(PROJECT),
            "folder": os.getcwd(),
            "ray_version": version("ray"),
            "login": LOGIN if Path(LOGIN).expanduser().exists() else "",
        }
        text = template.read_text(encoding="utf-8")
        variables |= {**settings, **sweep, "settings": others}
        tokens = settings.get("tokens")
        if tokens is not None and not Path(tokens).expanduser().is_file():
            abort(
                f"there is no file {tokens} of tokens", "one NAME=VALUE a line, as a shell reads it"
            )
        return _make_environment().from_string(text).render(variables)
    except jinja2.UndefinedError as error:
        abort(f"{template.name}: {error.message}", "give it by --set NAME=VALUE")
    except (jinja2.TemplateError, OSError, UnicodeError) as error:
        abort(f"the template {template} cannot be used: {error}", f"copy one of {TEMPLATES}")


def _make_environment() -> jinja2.Environment:
    """`| quote` makes a word of a shell, `| yaml` a value of YAML."""
    environment = jinja2.Environment(
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["quote"] = shlex.quote
    environment.filters["yaml"] = lambda value: json.dumps(value, default=str)
    return environment


def list_commands(kind: str, file: str) -> list[list[str]]:
    """What submits a launch file."""
    if kind == "slurm":
        return [["sbatch", file]]
    if kind == "kuberay":
        return [["kubectl", "create", "-f", file]]
    if kind == "sky":
        tokens = ["RAY_AUTH_TOKEN", *(name for name in TOKENS if os.environ.get(name))]
        secrets_of_job = [f"--secret={name}" for name in tokens]
        return [["sky", "jobs", "launch", "--yes", *secrets_of_job, file]]
    return [
        ["sh", "-c", "umask 077; ray get-auth-token --generate >/dev/null"],
        ["ray", "up", "--yes", file],
        ["ray", "exec", "--tmux", file, "bash ~/sweep.sh"],
    ]


if __name__ == "__main__":
    main()
