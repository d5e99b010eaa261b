"""Checkpoints on object storage: published whole or not at all, pruned as on a disk, fetched."""

import dataclasses
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.trainables.test_checkpoint import FILES, make_report
from trainables import checkpoint_storage, storage
from trainables.checkpoint import (
    ADAPTER_NAMES,
    PACK_STATE_NAMES,
    REPORT_NAME,
    Progress,
    find_resume_point,
    get_checkpoint_folder,
    read_last_report,
    write_progress,
    write_report,
)
from trainables.checkpoint_storage import (
    SET_ASIDE,
    fetch_checkpoint,
    fetch_last,
    prune,
    set_aside,
)
from trainables.config import TrialReport
from trainables.errors import SweepAborted

TRIAL_ID = "t0001"


class Cut(BaseException):
    """The process ends here."""


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a run's checkpoints, empty."""
    places = {"memory": f"memory://{uuid.uuid4().hex}", "file": f"file://{tmp_path}/bucket"}
    return f"{places[request.param]}/run/checkpoints"


def make_checkpoint(trial: Path, step: int, content: str = "") -> TrialReport:
    """A complete checkpoint on this disk, whose files all tell the same."""
    report = make_report(trial, step)
    for name in FILES:
        (report.checkpoint / name).write_text(content)
    write_report(dataclasses.replace(report, seconds=float(len(content))))
    return report


def publish(trial: Path, url: str, step: int, *, has_ended: bool = False) -> None:
    checkpoint_storage.publish(
        f"{url}/{TRIAL_ID}", get_checkpoint_folder(trial, step), has_ended=has_ended
    )


def read_contents(checkpoint: Path) -> set[str]:
    """What its files tell, but for the report: one thing, if they are of one writer."""
    return {(checkpoint / name).read_text() for name in FILES}


def list_there(url: str) -> dict[tuple[int, str], set[str]]:
    """Names of files by step and place."""
    fs, root = storage.open_url(url)
    return {
        (one.step, one.path): set(one.files) for one in checkpoint_storage._list_published(fs, root)
    }


def test_fetched_trial_goes_on_as_where_it_was_published(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here" / TRIAL_ID, tmp_path / "there" / TRIAL_ID
    for step in (1, 3):
        make_checkpoint(here, step, f"of step {step}")
        publish(here, url, step)
    fetch_last(f"{url}/{TRIAL_ID}", there)
    report, _ = find_resume_point(there, 9, PACK_STATE_NAMES)
    assert report is not None and report.checkpoint == get_checkpoint_folder(there, 3)
    assert dataclasses.replace(report, checkpoint=Path()) == dataclasses.replace(
        read_last_report(here) or report, checkpoint=Path()
    )
    assert read_contents(report.checkpoint) == {"of step 3"}


def test_fetched_trial_has_what_was_saved_since_its_last_report_until_the_next_one(
    url: str, tmp_path: Path
) -> None:
    here, there = tmp_path / "here" / TRIAL_ID, tmp_path / "there" / TRIAL_ID
    make_checkpoint(here, 1)
    publish(here, url, 1)
    for step in (2, 3):  # of which the older one is of no more use
        checkpoint = make_report(here, step).checkpoint
        progress = Progress(
            step=step, losses=[0.5], learning_rate=1e-3, training_s=1.0, checkpoint=checkpoint
        )
        write_progress(progress)
        publish(here, url, step)
    assert [step for step, _ in list_there(url)] == [1, 3]
    fetch_last(f"{url}/{TRIAL_ID}", there)
    report, found = find_resume_point(there, 9, PACK_STATE_NAMES)
    assert report is not None and report.step == 1
    assert found == dataclasses.replace(progress, checkpoint=get_checkpoint_folder(there, 3))
    make_checkpoint(here, 4)
    publish(here, url, 4)
    assert [step for step, _ in list_there(url)] == [1, 4]
    fetch_last(f"{url}/{TRIAL_ID}", there)
    assert [path.name for path in there.iterdir()] == ["checkpoint-4"]


def test_of_what_was_saved_at_a_rung_before_it_was_scored_only_the_report_counts(
    url: str, tmp_path: Path
) -> None:
    """Else a reader would take a checkpoint whose upload goes on for one between two rungs."""
    trial = tmp_path / TRIAL_ID
    checkpoint = make_checkpoint(trial, 3).checkpoint
    progress = Progress(
        step=3, losses=[0.5], learning_rate=1e-3, training_s=1.0, checkpoint=checkpoint
    )
    write_progress(progress)
    publish(trial, url, 3)
    assert list(list_there(url).values()) == [{*FILES, REPORT_NAME}]


def test_what_this_disk_has_of_an_attempt_that_was_not_published_is_forgotten(
    url: str, tmp_path: Path
) -> None:
    here, there = tmp_path / "here" / TRIAL_ID, tmp_path / "there" / TRIAL_ID
    make_checkpoint(here, 3, "published")
    publish(here, url, 3)
    make_checkpoint(there, 3, "another attempt's")
    make_checkpoint(there, 9, "another attempt's")
    fetch_last(f"{url}/{TRIAL_ID}", there)
    assert [path.name for path in there.iterdir()] == ["checkpoint-3"]
    assert read_contents(there / "checkpoint-3") == {"published"}
    fetch_last(f"{url}/t0002", there)
    assert list(there.iterdir()) == []


def test_last_two_checkpoints_stay_and_of_an_ended_trial_its_adapter(
    url: str, tmp_path: Path
) -> None:
    trial = tmp_path / TRIAL_ID
    for step in (1, 3, 9, 27):
        make_checkpoint(trial, step)
        publish(trial, url, step)
    assert [step for step, _ in list_there(url)] == [9, 27]
    prune(url, ["t0002"], have_ended=True)
    assert len(list_there(url)) == 2
    prune(url, [TRIAL_ID], have_ended=True)
    (files,) = list_there(url).values()
    assert files and files <= set(ADAPTER_NAMES)
    prune(url, [TRIAL_ID], have_ended=True)


def test_writer_that_was_given_up_deletes_nothing_later(url: str, tmp_path: Path) -> None:
    lost, new = tmp_path / "lost" / TRIAL_ID, tmp_path / "new" / TRIAL_ID
    begun = f"{url}/{TRIAL_ID}/checkpoint-81-00000000/adapter_model.safetensors"
    make_checkpoint(new, 9, "new")
    make_checkpoint(new, 27, "new")
    publish(new, url, 9)
    publish(new, url, 27)
    make_checkpoint(lost, 9, "lost one's")
    storage.put_file(begun, get_checkpoint_folder(new, 27) / "adapter_model.safetensors")
    publish(lost, url, 9)
    assert storage.read_file(begun) == b"new"
    reader = tmp_path / "reader" / TRIAL_ID
    fetch_last(f"{url}/{TRIAL_ID}", reader)
    assert read_contents(reader / "checkpoint-27") == {"new"}


def test_upload_beside_which_another_one_is_published_is_whole_in_the_end(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, new = tmp_path / "lost" / TRIAL_ID, tmp_path / "new" / TRIAL_ID
    make_checkpoint(lost, 9, "lost one's")
    make_checkpoint(new, 9, "new")
    put, is_first = storage._put, True

    def put_beside(target: str, path: Path) -> None:
        nonlocal is_first
        put(target, path)
        if is_first:
            is_first = False
            publish(lost, url, 9)

    monkeypatch.setattr(storage, "_put", put_beside)
    publish(new, url, 9)
    names = {path.name for path in get_checkpoint_folder(new, 9).iterdir()}
    assert len(there := list_there(url)) == 2 and all(files == names for files in there.values())


def test_upload_that_was_cut_off_is_deleted_once_later_checkpoints_are_there(
    url: str, tmp_path: Path
) -> None:
    trial = tmp_path / TRIAL_ID
    for step in (3, 9, 27):
        make_checkpoint(trial, step)
    begun = f"{url}/{TRIAL_ID}/checkpoint-3-00000000/adapter_model.safetensors"
    storage.put_file(begun, get_checkpoint_folder(trial, 3) / "adapter_model.safetensors")
    publish(trial, url, 3)
    assert storage.read_file(begun) is not None
    publish(trial, url, 9)
    publish(trial, url, 27)
    assert [step for step, _ in list_there(url)] == [9, 27]
    begun = f"{url}/{TRIAL_ID}/checkpoint-81-00000000/adapter_model.safetensors"
    storage.put_file(begun, get_checkpoint_folder(trial, 27) / "adapter_model.safetensors")
    prune(url, [TRIAL_ID], have_ended=True)
    assert [step for step, _ in list_there(url)] == [27]


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Has the process end at the n-th change of storage from now on, which is half done if it is a
    copy to a disk."""

    monkeypatch.setattr(storage, "RETRY_WAITS_S", ())

    def arrange(num_changes: int) -> None:
        left = num_changes

        def count(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left >= 0:
                return method(*args, **kwargs)
            if method.__name__ == "put_file" and "file" in args[0].protocol:
                content = Path(args[1]).read_bytes()
                Path(args[2]).parent.mkdir(parents=True, exist_ok=True)
                Path(args[2]).write_bytes(content[: len(content) // 2])
            if method.__name__ == "rm":  # in any order
                fs, path = args
                files = sorted(fs.find(path), key=lambda file: file.endswith(REPORT_NAME))
                originals[fs.protocol if isinstance(fs.protocol, str) else "file", "rm_file"](
                    fs, files[0]
                )
            raise Cut

        for scheme in ("memory", "file"):
            of = fsspec.get_filesystem_class(scheme)
            for name in ("put_file", "mv", "rm", "rm_file"):
                method = originals[scheme, name]
                monkeypatch.setattr(
                    of, name, lambda *a, _method=method, **k: count(_method, *a, **k)
                )

    originals = {
        (scheme, name): getattr(fsspec.get_filesystem_class(scheme), name)
        for scheme in ("memory", "file")
        for name in ("put_file", "mv", "rm", "rm_file")
    }
    yield arrange


@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize("step", [9, 27])
def test_cut_at_any_instant_leaves_readers_the_old_or_the_new_checkpoint(
    url: str,
    tmp_path: Path,
    cut: Callable[[int], None],
    has_ended: bool,
    step: int,
) -> None:
    seen = set()
    for num_changes in range(100):
        place, trial = f"{url}/{num_changes}", tmp_path / f"{num_changes}" / TRIAL_ID
        cut(1000)
        make_checkpoint(trial, 3, "older")
        make_checkpoint(trial, 9, "old")
        publish(trial, place, 3)
        publish(trial, place, 9)
        writer = tmp_path / f"writer{num_changes}" / TRIAL_ID  # the same step, if one was lost
        make_checkpoint(writer, step, "renewed")
        cut(num_changes)
        is_cut = True
        try:
            publish(writer, place, step, has_ended=has_ended)
            is_cut = False
        except Cut:
            pass
        cut(1000)
        reader = tmp_path / f"reader{num_changes}" / TRIAL_ID
        fetch_last(f"{place}/{TRIAL_ID}", reader)
        report = read_last_report(reader)
        assert report is not None
        there = {name: (report.checkpoint / name) for name in FILES}
        contents = {path.read_text() for path in there.values() if path.exists()}
        assert contents in ({"old"}, {"renewed"}), num_changes
        seen |= contents
        if contents == {"old"}:
            assert all(path.exists() for path in there.values())
        if not is_cut:
            break
    assert seen == {"old", "renewed"} and num_changes > len(FILES)


def test_failed_write_is_tried_again_and_then_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(storage.time, "sleep", waits.append)
    trial = tmp_path / TRIAL_ID
    make_checkpoint(trial, 3)
    (tmp_path / "bucket").write_text("no folder")
    with pytest.raises(SweepAborted) as refused:
        publish(trial, f"file://{tmp_path}/bucket", 3)
    assert refused.value.is_resumable and "bucket" in refused.value.error
    assert waits == list(storage.RETRY_WAITS_S)


def test_node_tests_the_adapter_of_the_run_and_not_of_an_earlier_one_of_its_name(
    url: str, tmp_path: Path
) -> None:
    run_url = url.removesuffix("/checkpoints")
    trained, earlier = (tmp_path / name / TRIAL_ID for name in ("trained", "earlier"))
    make_checkpoint(trained, 9, "this run's")
    make_checkpoint(earlier, 9, "another run's one")
    publish(trained, url, 9)
    checkpoint = get_checkpoint_folder(earlier, 9)
    assert fetch_checkpoint(run_url, checkpoint, is_compared=True) == checkpoint
    assert read_contents(checkpoint) == {"this run's"}


def test_what_is_set_aside_is_whole_goes_on_nowhere_and_outlives_the_next_attempt(
    url: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first" / TRIAL_ID, tmp_path / "second" / TRIAL_ID
    for step in (1, 3):
        make_checkpoint(first, step, f"first {step}")
        publish(first, url, step)
    assert set_aside(url, lambda trial_id, step: (trial_id, step) == (TRIAL_ID, 3)) == [TRIAL_ID]
    assert [step for step, _ in list_there(url)] == [1]
    fetch_last(f"{url}/{TRIAL_ID}", second)
    assert [path.name for path in second.iterdir()] == ["checkpoint-1"]
    make_checkpoint(second, 3, "second 3")
    publish(second, url, 3, has_ended=True)
    fs, root = storage.open_url(url)
    kept = [path for path in fs.find(root) if SET_ASIDE in path]
    assert {path.rpartition("/")[2] for path in kept} == {*FILES, REPORT_NAME}
    assert {fs.cat_file(path).decode() for path in kept if path.rpartition("/")[2] in FILES} == {
        "first 3"
    }
