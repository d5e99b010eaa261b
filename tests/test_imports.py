"""The arrows between the packages, the folders at the top, and what --help leaves unloaded."""

import ast
import fnmatch
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("sweeps", "trainables", "search_spaces", "cluster")
MAY_IMPORT = {
    "sweeps": set(PACKAGES),
    "trainables": {"trainables"},
    "search_spaces": {"search_spaces"},
    "cluster": {"cluster"},
}
THIRD_PARTY = {"search_spaces": {"optuna"}, "cluster": {"ray", "jinja2"}}
WITH_RAY = {
    "trainables/trial.py",
    "trainables/packing/service/actor.py",
    "trainables/packing/service/client.py",
}
LEFT_UNLOADED = {"torch", "ray", "wandb", "transformers", "trl", "peft", "bitsandbytes"}


def imported(path: Path) -> set[str]:
    """Top-level names of every import in a file, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} has a relative import"
            found.add(node.module.partition(".")[0])
    return found


def files_of(package: str) -> list[Path]:
    files = sorted((PROJECT / package).rglob("*.py"))
    assert len(files) >= 2, f"no files were found in {package}"
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_along_the_arrows_only(package: str) -> None:
    seen = set()
    for path in files_of(package):
        ours = imported(path) & {*PACKAGES, "tests"}
        assert ours <= MAY_IMPORT[package], f"{path} imports {ours - MAY_IMPORT[package]}"
        seen |= ours
    assert package in seen


def test_sweeps_imports_all_the_others() -> None:
    assert set().union(*map(imported, files_of("sweeps"))) >= set(PACKAGES)


@pytest.mark.parametrize("package", THIRD_PARTY)
def test_small_packages_import_little(package: str) -> None:
    names = set().union(*map(imported, files_of(package)))
    assert names - sys.stdlib_module_names - set(PACKAGES) == THIRD_PARTY[package]


def test_trainables_import_ray_at_the_seam_only() -> None:
    users = {
        path.relative_to(PROJECT).as_posix()
        for path in files_of("trainables")
        if "ray" in imported(path)
    }
    assert "trainables/trial.py" in users and users <= WITH_RAY


@functools.cache
def imports_between_files() -> dict[str, set[str]]:
    """The modules of the packages, and which of the others each imports, anywhere in the file."""
    modules = {
        ".".join(path.relative_to(PROJECT).with_suffix("").parts): path
        for package in PACKAGES
        for path in files_of(package)
        if path.name != "__init__.py"
    }
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names} & modules.keys()
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found[module] |= {str(node.module), *names} & modules.keys()
    assert sum(map(len, found.values())) > len(found)
    return found


def test_no_file_imports_itself_over_others_even_late() -> None:
    """An import inside a function counts: it hides a cycle, it does not undo it."""
    imports = imports_between_files()
    left = dict(imports)
    while leaves := [module for module, others in left.items() if not others & left.keys()]:
        for module in leaves:
            del left[module]
    while tops := [module for module in left if not any(module in left[other] for other in left)]:
        for module in tops:
            del left[module]
    assert not left, "a cycle: " + ", ".join(
        f"{module} -> {sorted(others & left.keys())}" for module, others in left.items()
    )


def test_config_imports_from_no_folder_that_imports_it() -> None:
    imports = imports_between_files()
    folders = {module.rpartition(".")[0] for module in imports["sweeps.config"]} - {"sweeps"}
    assert "sweeps.records" in folders
    for module, others in imports.items():
        if module.rpartition(".")[0] in folders:
            assert "sweeps.config" not in others, module


def test_packs_import_nothing_of_the_solo_engine() -> None:
    imports = imports_between_files()
    packing = {module: imports[module] for module in imports if ".packing." in module}
    users = {
        module
        for module, others in packing.items()
        if any(other.startswith("trainables.solo") for other in others)
    }
    assert packing and not users


def test_kernels_import_nothing_of_what_uses_them() -> None:
    kernels = "trainables.packing.compute.kernels."
    imports = imports_between_files()
    found = {module: imports[module] for module in imports if module.startswith(kernels)}
    assert found and all(other.startswith(kernels) for others in found.values() for other in others)


def test_no_folder_has_more_than_sixteen_files() -> None:
    folders = {path.parent for package in PACKAGES for path in files_of(package)}
    crowded = {
        folder.relative_to(PROJECT).as_posix(): count
        for folder in folders
        if (count := len(list(folder.glob("*.py")))) > 16
    }
    assert len(folders) > 10 and not crowded


def test_vocabulary_needs_the_standard_library_only() -> None:
    for name in ("config.py", "errors.py"):
        assert imported(PROJECT / "trainables" / name) <= sys.stdlib_module_names


def test_folders_at_the_top_are_the_five() -> None:
    lines = (PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [line.strip("/") for line in lines if line and not line.startswith("#")]
    folders = {
        path.name
        for path in PROJECT.iterdir()
        if path.is_dir()
        and not path.name.startswith(".")
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored)
    }
    assert folders == {*PACKAGES, "tests"}


@pytest.mark.parametrize("words", [["--help"], ["samsum", "--help"], ["samsun"]])
def test_help_and_early_errors_load_nothing_heavy(words: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sweeps.run", *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == (0 if "--help" in words else 2), ended.stderr[-2000:]
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert "sweeps" in loaded and "tyro" in loaded
    assert not loaded & LEFT_UNLOADED


MISTAKES = {
    "sweeps.export": ["nowhere", "--to", "copy"],
    "sweeps.demo": ["nowhere"],
    "sweeps.predict": ["nowhere", "--input", "a", "--output", "b"],
    "sweeps.verify": ["nowhere", "t0"],
}
RUN_COMMANDS = f"""
import contextlib, importlib, io
from sweeps.cli import run_command
for command, mistake in {MISTAKES}.items():
    main = importlib.import_module(command).main
    for words, code in ((["--help"], 0), (mistake, 2)):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                run_command(lambda: main(words))
        except SystemExit as ended:
            assert ended.code == code, (command, words, ended.code)
"""


def test_help_and_mistakes_of_other_commands_load_no_torch() -> None:
    loaded = loaded_by(RUN_COMMANDS)
    assert set(MISTAKES) <= loaded and "torch" not in loaded


@pytest.mark.slow
def test_a_packs_process_does_without_the_reference_engine() -> None:
    """TRL, and W&B through it, take seconds to import, while GPUs wait; so do the metrics, which a
    pack imports while it loads the base, and the compiler. Metrics are called without evaluate,
    which brings datasets with it: 1.7 s."""
    loaded = loaded_by(
        "import os; from trainables.process import COMPILES_NOTHING; "
        "os.environ.update(COMPILES_NOTHING); import trainables.packing.service.loading; "
        "assert not {'datasets', 'evaluate', 'nltk'} & set(sys.modules); "
        "from trainables.packing.evaluation.evaluator import load_metrics; load_metrics()"
    )
    assert {"bitsandbytes", "trainables.metrics.rouge"} <= loaded
    assert not loaded & {"trl", "wandb", "datasets", "evaluate", "torch._inductor.compile_fx"}


@pytest.mark.slow
def test_who_starts_a_pack_or_trains_in_one_loads_no_torch() -> None:
    loaded = loaded_by("from trainables.packing.service import actor, client")
    assert "ray" in loaded and not loaded & {"torch", "transformers"}


def loaded_by(code: str) -> set[str]:
    """The modules that are there when a process has run the code."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sorted(sys.modules))"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ended.stdout.split())
