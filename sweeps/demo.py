"""python -m sweeps.demo RUN: a page on which the untuned base and the winner answer your text."""

import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import tyro

from sweeps.checks.preflight import has_gpu
from sweeps.cli import parse, run_command
from sweeps.publish.demo import HOST
from sweeps.publish.demo.side_by_side import SideBySide, list_examples
from sweeps.publish.trained_run import open_trained_run
from trainables.config import require
from trainables.errors import SweepAborted

PROG = "python -m sweeps.demo"


@dataclass(frozen=True, kw_only=True)
class DemoArgs:
    """Serves a page to this machine alone: the untuned base and a tuned model answer side by side,
    as the sweep's rows were asked and scored. Nothing is sent elsewhere. Ctrl-C ends it.

    On another machine: ssh -L 7860:127.0.0.1:7860 MACHINE, then open http://127.0.0.1:7860 here.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the sweep, e.g. runs/samsum."""
    trial: str | None = None
    """Id of another trial, or run of the finals, whose adapter is still in checkpoints/, e.g.
    t0003; None is the winner in best/."""
    model: str | None = None
    """Where the sweep's model is now, as Hub id or folder; None is where it was."""
    port: int | None = None
    """Port of the page; None is the first free one from 7860 on."""
    examples: int = 50
    """Rows of validation that can be chosen on the page."""

    def __post_init__(self) -> None:
        is_port = self.port is None or 1 <= self.port < 2**16
        require(is_port, "port", self.port, "from 1 to 65535")
        require(self.examples >= 0, "examples", self.examples, "0 or more")


def main(argv: Sequence[str] | None = None) -> None:
    """Checks all that can be checked before the model is loaded, loads it and serves the page."""
    args = parse(DemoArgs, argv, PROG)
    run = open_trained_run(args.run, trial=args.trial, model=args.model, batch_size=2)
    if importlib.util.find_spec("gradio") is None:
        error = "the page is made by gradio, which is not installed"
        raise SweepAborted(error, "pip install '.[demo]'")
    if args.port is not None:
        _check_port(args.port)
    examples = list_examples(run, args.examples)
    if not (run.config.tiny or has_gpu(has_ray=False)):
        print("note: no GPU found: the CPU answers, which takes long", file=sys.stderr)
    models = SideBySide(run)
    with suppress(KeyboardInterrupt):
        if examples:
            print("loading the model", file=sys.stderr, flush=True)
            models.ask(examples[0].values, examples[0].values)
        # Gradio asks itself whether it can be reached, and would ask a proxy.
        for name in ("NO_PROXY", "no_proxy"):
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), HOST)))
        from sweeps.publish.demo.page import launch, make_page  # loads gradio

        page = make_page(models, examples, f"Tuned ({args.trial or 'winner'})")
        url = launch(page, args.port)
        print(f"open {url} (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def _check_port(port: int) -> None:
    """Refuses a port that another process has."""
    with socket.socket() as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind((HOST, port))
        except OSError as refused:
            raise SweepAborted(
                f"port {port} of {HOST} cannot be had: {refused.strerror}",
                "name another, or leave out --port",
            ) from None


if __name__ == "__main__":
    run_command(main)
