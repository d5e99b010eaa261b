"""A user's metric scores in a process of its own; whatever it does, its caller is told why."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from trainables.data.rows import MetricCode, Row
from trainables.errors import TrialFailed
from trainables.metrics.custom import client, process
from trainables.metrics.custom.client import MetricProcess, end_processes, score_custom

ROWS = [
    Row(id="0", prompt="1 + 1?", target="2"),
    Row(id="1", prompt="a synonym of big?", target="large", references=("huge",)),
]
ANSWERS = ("2", "huge")
INT, FLOAT = 'datasets.Value("int32")', 'datasets.Value("float32")'
Load = Callable[[MetricCode, Sequence[str]], process.Score]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    end_processes()


def score(
    source: str, *, key: str | None = None, timeout_s: float = 60.0
) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
    metric = MetricCode(name="score", files={"mine.py": source}, function="score", key=key)
    return score_custom([metric], ROWS, ANSWERS, (), timeout_s=timeout_s)


def returning(expression: str) -> str:
    return f"def score(rows):\n    print('noise')\n    return {expression}\n"


def test_a_number_a_dict_and_a_number_a_row_are_scores() -> None:
    is_right = "[r['answer'] in (r['target'], *r['references']) for r in rows]"
    assert score(returning(f"sum({is_right}) / len(rows)")) == ({"score": 1.0}, {})
    assert score(returning("{'a': 1, 'b': 2.5}"), key="b") == ({"score_a": 1.0, "score_b": 2.5}, {})
    lengths = "[len(r['prompt']) for r in rows]"
    assert score(returning(lengths)) == ({"score": 11.5}, {"score": (6.0, 17.0)})


def test_a_row_has_what_the_metric_is_told_it_has() -> None:
    keys = "float(sorted(rows[1]) == ['answer', 'prompt', 'references', 'target'])"
    assert score(returning(keys))[0] == {"score": 1.0}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (returning("1 / 0"), r"ZeroDivisionError: division by zero \(mine.py, line 3\)"),
        ("import sys\n" + returning("sys.exit('so')"), "SystemExit: so"),
        ("import os\n" + returning("os._exit(3)"), "its process ended with exit code 3"),
        ("import os\n" + returning("os.kill(os.getpid(), 11)"), "its process ended with signal 11"),
        (returning("float('nan')"), "it returned nan, which is not finite"),
        (returning("'high'"), "it returned str; return a number"),
        (returning("None"), "it returned NoneType"),
        (returning("[1.0]"), "it returned 1 numbers for 2 rows"),
        (returning("[1.0, float('inf')]"), "row 1 got inf"),
        (returning("{'a': 'x'}"), "a is 'x', which is no number"),
        (returning("{'a b': 1}"), "the key 'a b'"),
        (returning("{'a': 1, 'b': 2}"), "it gives a, b, of which none was named"),
        ("def other(rows):\n    return 1\n", "has no function score; it has other"),
        ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def score(rows):\n  return (\n", "SyntaxError"),
        ("import time\n" + returning("time.sleep(60)"), "it gave nothing for 2 s"),
    ],
)
@pytest.mark.slow
def test_what_goes_wrong_is_the_reason(source: str, reason: str) -> None:
    with pytest.raises(TrialFailed, match=rf"the metric score failed: .*{reason}"):
        score(source, timeout_s=2.0 if "sleep" in source else 60.0)


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(TrialFailed, match="it gives a, and no b"):
        score(returning("{'a': 1}"), key="b")
    with pytest.raises(TrialFailed, match="it gives no dict, so it has no b"):
        score(returning("1"), key="b")


def test_one_process_serves_many_reports_and_a_new_one_those_after_a_crash() -> None:
    calls = "CALLS = []\n\ndef score(rows):\n    CALLS.append(1)\n"
    calls += "    return 1 / (3 - len(CALLS))\n"
    assert [score(calls)[0]["score"] for _ in range(2)] == [0.5, 1.0]
    with pytest.raises(TrialFailed, match="division by zero"):
        score(calls)
    assert score(calls)[0] == {"score": 0.5}


def test_no_gpu_and_no_network_of_the_hub_is_seen() -> None:
    seen = "float(os.environ['CUDA_VISIBLE_DEVICES'] == '' and os.environ['HF_HUB_OFFLINE'] == '1')"
    assert score("import os\n" + returning(seen))[0] == {"score": 1.0}


def test_modules_of_this_project_hide_none_of_the_users() -> None:
    """trainables/metrics has a rouge.py, and a script's folder is searched first otherwise."""
    source = "import sys\n" + returning("float(any('custom' in path for path in sys.path))")
    assert score(source)[0] == {"score": 0.0}


HOLDS_THE_GIL = "import re; re.match('(a+)+$', 'a' * 60 + 'b')"
STARTS_ANOTHER = "import subprocess; subprocess.run(['sleep', '600'])"


@pytest.mark.parametrize("work", ["while True: pass", HOLDS_THE_GIL, STARTS_ANOTHER])
def test_an_endless_metric_ends_with_the_process_that_started_it(tmp_path: Path, work: str) -> None:
    place, folders = tmp_path / "pid", tmp_path / "tmp"
    folders.mkdir()
    endless = (
        f"import os\ndef score(rows):\n    open({str(place)!r}, 'w').write(str(os.getpid()))\n"
    )
    endless += f"    {work}\n"
    code = f"""
from trainables.data.rows import MetricCode, Row
from trainables.metrics.custom import client, process
from trainables.metrics.custom.client import score_custom
metric = MetricCode(name="score", files={{"m.py": {endless!r}}}, function="score")
score_custom([metric], [Row(id="0", prompt="", target="")], [""], ())
"""
    environment = os.environ | {"TMPDIR": str(folders)}
    caller = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_until(lambda: place.exists() and place.read_text() != "")
    pid = int(place.read_text())
    assert list(folders.iterdir())
    caller.kill()
    caller.wait()
    wait_until(lambda: not is_running(pid))
    wait_until(lambda: not list(folders.iterdir()))


@pytest.mark.parametrize(
    "source",
    [
        returning("1"),
        returning("1 / 0"),
        "import os\n" + returning("os.kill(os.getpid(), 11)"),
        "import time\n" + returning("time.sleep(60)"),
        HOLDS_THE_GIL + "\n" + returning("1"),
    ],
)
def test_no_folder_and_no_process_stays(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with contextlib.suppress(TrialFailed):
        score(source, timeout_s=1.5)
    end_processes()
    assert list(tmp_path.iterdir()) == []
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children]
    assert not [command for command in commands if "process.py" in command]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(holds: object, seconds: float = 60.0) -> None:
    assert callable(holds)
    end_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.05)


MODULE = """
import datasets
import evaluate
from .length import length_of

class Longer(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description="", citation="", features=datasets.Features(
                {"predictions": datasets.Value("PREDICTION"), "references": REFERENCES}
            ),
        )

    def _compute(self, predictions, references):
        return {"mean": COMPUTE, "kinds": ["no number"]}
"""


def module(prediction: str, references: str, compute: str) -> MetricCode:
    source = MODULE.replace("PREDICTION", prediction).replace("REFERENCES", references)
    files = {
        "longer.py": source.replace("COMPUTE", compute),
        "length.py": "def length_of(text):\n    return len(text)\n",
    }
    return MetricCode(name="evaluate_longer", files=files, function=None)


@pytest.fixture
def load_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads a metric in this process: to load evaluate takes each process of its own seconds."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(metric: MetricCode, labels: Sequence[str]) -> process.Score:
        return process.load(asdict(metric) | {"labels": labels}, tmp_path)

    yield load
    for name in [name for name in sys.modules if name.split(".")[0] == process.PACKAGE]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prediction", "references", "compute", "labels", "num_rows", "expected"),
    [
        ("string", 'datasets.Sequence(datasets.Value("string"))', "len(references[1])", (), 2, 2),
        ("int32", INT, "predictions[1] * 10 + references[1]", ("2", "huge", "large"), 2, 12),
        ("float32", FLOAT, "predictions[0] + references[0]", (), 1, 4.0),
    ],
)
def test_a_module_of_evaluate_gets_what_it_takes(
    prediction: str,
    references: str,
    compute: str,
    labels: Sequence[str],
    num_rows: int,
    expected: float,
    load_here: Load,
) -> None:
    score = load_here(module(prediction, references, compute), labels)
    rows = [
        {"answer": answer, "target": row.target, "references": row.references}
        for row, answer in zip(ROWS, ANSWERS, strict=True)
    ]
    assert score(rows[:num_rows]) == {"mean": expected}


@pytest.mark.slow
def test_a_module_of_labels_is_none_of_texts(load_here: Load) -> None:
    score = load_here(module("int32", INT, "1.0"), ())
    with pytest.raises(TypeError, match="whole numbers, so the metric is one of labels"):
        score([{"answer": "2", "target": "2", "references": ()}])


@pytest.mark.slow
def test_a_module_of_evaluate_scores_in_a_process_of_its_own() -> None:
    metric = module(
        "string", 'datasets.Value("string")', "length_of(predictions[1] + references[1])"
    )
    assert score_custom([metric], ROWS, ANSWERS, ()) == ({"evaluate_longer": 9}, {})


@pytest.mark.slow
def test_a_module_in_evaluates_cache_is_found_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As evaluate.load leaves it: HF_MODULES_CACHE/evaluate_modules/metrics/NAME/HASH/NAME.py."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path))
    metric = module("string", 'datasets.Value("string")', "7.0")
    name = "evaluate-metric--longer"
    folder = tmp_path / "evaluate_modules" / "metrics" / name / ("0" * 64)
    folder.mkdir(parents=True)
    for part in (tmp_path / "evaluate_modules", *list(folder.parents)[1::-1], folder):
        (part / "__init__.py").touch()
    for file, source in metric.files.items():
        (folder / file).write_text(source)
    apart = MetricProcess(metric, (), 60.0)
    try:
        found = apart.find_files("longer")
    finally:
        apart.end()
    assert found == metric.files and next(iter(found)) == "longer.py"
    with pytest.raises(TrialFailed, match=r"FileNotFoundError|Error"):
        MetricProcess(metric, (), 60.0).find_files("nowhere_at_all")


def test_who_scores_loads_no_evaluate() -> None:
    code = (
        "import sys, trainables.metrics.custom.client; "
        "print(sorted({'torch', 'evaluate', 'datasets'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_the_example_in_the_readme_scores() -> None:
    text = Path(client.__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    rows, answers = ROWS[:1] * 2, ("it is 2", "three")
    metric = MetricCode(name="score", files={"mine.py": source}, function="score")
    found = score_custom([metric], rows, answers, ())
    assert found == ({"score": 0.5}, {"score": (1.0, 0.0)})


def test_a_key_never_takes_another_scores_name() -> None:
    sources = [returning(f"{{'a': {n}, 'own{n}': 1}}") for n in (1, 2)]
    metrics = [
        MetricCode(name="score", files={"m.py": source}, function="score", key=f"own{n}")
        for n, source in enumerate(sources, 1)
    ]
    with pytest.raises(TrialFailed, match="its score_a is another score's name"):
        score_custom(metrics, ROWS, ANSWERS, ())
    source = "def token(rows):\n    return {'f1': 3, 'n': 1}\n"
    token = MetricCode(name="token", files={"m.py": source}, function="token", key="n")
    with pytest.raises(TrialFailed, match="its token_f1 is another score's name"):
        score_custom([token], ROWS, ANSWERS, ())
