"""Which checkpoints count, and which may go."""

import dataclasses
import errno
from pathlib import Path

import pytest

import trainables.files
from trainables.checkpoint import (
    PACK_STATE_NAMES,
    SOLO_STATE_NAMES,
    TMP_SUFFIX,
    Progress,
    abort_if_disk_fails,
    delete_incomplete,
    find_resume_point,
    get_checkpoint_folder,
    keep_last,
    list_complete_checkpoints,
    prune_to_adapter,
    read_last_report,
    write_progress,
    write_report,
)
from trainables.config import TrialReport
from trainables.errors import SweepAborted, TrialFailed

FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "tokenizer.json",
    *SOLO_STATE_NAMES,
    *PACK_STATE_NAMES,
)
NOTHING = (None, None)


def make_report(folder: Path, step: int) -> TrialReport:
    """A report of a step, and the files of its checkpoint but for the mark."""
    checkpoint = get_checkpoint_folder(folder, step)
    checkpoint.mkdir(parents=True)
    for name in FILES:
        (checkpoint / name).touch()
    return TrialReport(
        trial_id="t0001",
        step=step,
        metrics={"rougeLsum": 31.25},
        train_loss=1.5,
        learning_rate=2e-4,
        epoch=0.5,
        tokens=1234,
        tokens_per_s=99.5,
        seconds=12.25,
        peak_gib=0.75,
        checkpoint=checkpoint,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Complete checkpoints at 2, 10 and 9, and one at 12 that is not."""
    for step in (2, 10, 9):
        write_report(make_report(tmp_path, step))
    make_report(tmp_path, 12)
    return tmp_path


def names(folder: Path) -> list[str]:
    """What the folder holds."""
    return sorted(path.name for path in folder.iterdir())


def test_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    report = make_report(tmp_path, 4)
    assert read_last_report(tmp_path) is None
    write_report(report)
    assert read_last_report(tmp_path) == report


def test_report_is_written_without_its_cohort(tmp_path: Path) -> None:
    report, other = make_report(tmp_path / "t0", 4), make_report(tmp_path / "t1", 4)
    write_report(dataclasses.replace(report, cohort=(other,)))
    assert read_last_report(tmp_path / "t0") == report


def test_report_names_the_place_where_the_checkpoint_is_now(tmp_path: Path) -> None:
    write_report(make_report(tmp_path / "old", 4))
    (tmp_path / "old").rename(tmp_path / "new")
    found = read_last_report(tmp_path / "new")
    assert found is not None
    assert found.checkpoint == tmp_path / "new" / "checkpoint-4"


def test_complete_checkpoints_are_in_order_of_steps(folder: Path) -> None:
    assert [path.name for path in list_complete_checkpoints(folder)] == [
        "checkpoint-2",
        "checkpoint-9",
        "checkpoint-10",
    ]


def test_incomplete_checkpoints_are_deleted(folder: Path) -> None:
    (folder / f"checkpoint-12{TMP_SUFFIX}").mkdir()
    delete_incomplete(folder)
    assert names(folder) == ["checkpoint-10", "checkpoint-2", "checkpoint-9"]


def test_last_two_checkpoints_are_kept(folder: Path) -> None:
    keep_last(folder)
    assert names(folder) == ["checkpoint-10", "checkpoint-12", "checkpoint-9"]


def test_other_files_stay_when_all_checkpoints_are_deleted(folder: Path) -> None:
    (folder / "checkpoint-notes").touch()
    prune_to_adapter(folder)
    assert find_resume_point(folder, 20, SOLO_STATE_NAMES) == NOTHING
    assert names(folder) == ["checkpoint-notes"]


@pytest.mark.parametrize("content", ["", "[]", '{"step": 4}', '{"step": 4, "metr', "[" * 10**5])
def test_damaged_report_fails_its_trial_and_is_named(tmp_path: Path, content: str) -> None:
    write_report(make_report(tmp_path, 4))
    (tmp_path / "checkpoint-4" / "report.json").write_text(content)
    with pytest.raises(TrialFailed, match=r"checkpoint-4/report\.json cannot be read: "):
        find_resume_point(tmp_path, 20, PACK_STATE_NAMES)


@pytest.mark.parametrize("state_names", [SOLO_STATE_NAMES, PACK_STATE_NAMES])
def test_pruning_leaves_one_adapter_with_its_report(
    folder: Path, state_names: tuple[str, ...]
) -> None:
    for _ in range(2):
        prune_to_adapter(folder)
        assert names(folder) == ["checkpoint-10"]
        assert names(folder / "checkpoint-10") == [
            "adapter_config.json",
            "adapter_model.safetensors",
            "report.json",
        ]
    assert find_resume_point(folder, 20, state_names) == NOTHING


def test_pruning_a_folder_without_a_complete_checkpoint_leaves_none(tmp_path: Path) -> None:
    make_report(tmp_path, 3)
    prune_to_adapter(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("state_names", [SOLO_STATE_NAMES, PACK_STATE_NAMES])
def test_trial_goes_on_from_its_last_complete_checkpoint(
    folder: Path, state_names: tuple[str, ...]
) -> None:
    assert find_resume_point(folder, 20, state_names) == (read_last_report(folder), None)
    assert names(folder) == ["checkpoint-10", "checkpoint-2", "checkpoint-9"]
    (get_checkpoint_folder(folder, 10) / state_names[0]).unlink()
    assert find_resume_point(folder, 10, state_names) == (read_last_report(folder), None) != NOTHING
    assert find_resume_point(folder, 20, state_names) == NOTHING
    assert names(folder) == []


@pytest.mark.parametrize("state_names", [SOLO_STATE_NAMES, PACK_STATE_NAMES])
def test_trial_goes_on_from_what_it_has_done_since_its_last_report(
    folder: Path, state_names: tuple[str, ...]
) -> None:
    progress = Progress(
        step=12,
        losses=[0.1, 1 / 3],
        learning_rate=1e-3,
        training_s=1.5,
        checkpoint=get_checkpoint_folder(folder, 12),
    )
    write_progress(dataclasses.replace(progress, checkpoint=make_report(folder, 11).checkpoint))
    write_progress(progress)
    keep_last(folder)
    make_report(folder, 13)
    assert find_resume_point(folder, 20, state_names) == (read_last_report(folder), progress)
    assert names(folder) == ["checkpoint-10", "checkpoint-12", "checkpoint-9"]
    write_report(make_report(folder, 13))
    assert find_resume_point(folder, 20, state_names) == (read_last_report(folder), None)
    keep_last(folder)
    assert names(folder) == ["checkpoint-10", "checkpoint-13"]


def test_trial_that_has_only_been_saved_between_rungs_goes_on_and_keeps_nothing_at_its_end(
    tmp_path: Path,
) -> None:
    checkpoint = make_report(tmp_path, 3).checkpoint
    progress = Progress(
        step=3, losses=[2.0], learning_rate=1e-3, training_s=1.5, checkpoint=checkpoint
    )
    write_progress(progress)
    assert find_resume_point(tmp_path, 20, PACK_STATE_NAMES) == (None, progress)
    prune_to_adapter(tmp_path)
    assert names(tmp_path) == []


def test_trial_without_a_folder_starts_anew_in_one(tmp_path: Path) -> None:
    assert find_resume_point(tmp_path / "checkpoints" / "t0001", 20, SOLO_STATE_NAMES) == NOTHING
    assert (tmp_path / "checkpoints" / "t0001").is_dir()


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is full"),
        (errno.EIO, "does not answer"),
        (errno.ESTALE, "does not answer"),
    ],
)
def test_fault_of_the_disk_names_its_remedy(tmp_path: Path, number: int, fault: str) -> None:
    with pytest.raises(SweepAborted) as aborted, abort_if_disk_fails(tmp_path / "t0001"):
        raise OSError(number, "no room")
    assert aborted.value.error == f"the disk of {tmp_path} {fault}"
    assert aborted.value.is_resumable


def test_any_failed_write_to_a_full_disk_is_taken_for_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainables.files, "FULL_BYTES", 2**80)
    with pytest.raises(SweepAborted), abort_if_disk_fails(tmp_path / "t0001"):
        raise RuntimeError("a writer's own words")


def test_other_faults_are_not_the_disk_s(tmp_path: Path) -> None:
    for error in (OSError(errno.EACCES, "no permission"), RuntimeError("a fault of ours")):
        with pytest.raises(type(error)), abort_if_disk_fails(tmp_path / "not there"):
            raise error
