"""python -m sweeps.run samsum: recipe -> preflight -> connect -> tune -> test -> best.

`from sweeps import run_sweep` does the same in Python.
"""

import sys
from collections.abc import Sequence

from sweeps.checks.commands import write_resume_command
from sweeps.checks.run_args import read_command
from sweeps.cli import Result, run_command
from sweeps.config import to_json
from sweeps.sweep import check_args, run_from_args


def main(argv: Sequence[str] | None = None) -> Result:
    """Runs one sweep, or says what it would do."""
    args = read_command(sys.argv[1:] if argv is None else argv)
    if args.dry_run:
        from sweeps.cost import plan  # loads Optuna, which early errors do without

        config, preflight = check_args(args, write_resume_command)
        print(plan.describe(config, preflight))
        sections = plan.list_sections(config, preflight)
        return Result({"config": to_json(config), "plan": sections})
    code, folder = run_from_args(args, write_resume_command)
    if not args.json:
        return Result({}, code)
    from sweeps.publish.load_run import load_run

    return Result(load_run(folder).to_json(), code)


if __name__ == "__main__":
    run_command(main)
