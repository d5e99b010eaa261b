"""The benchmark of network cuts finds delays, and what W&B did not get."""

from tests.benchmarks.network_cut import find_largest_delay, list_faults, list_waits
from tests.sweeps.servers.wandb_server import ServedRun, WandbServer


def log_trial(*seconds: float) -> list[dict[str, object]]:
    """The events of a trial that starts, and reports its steps 1, 2 ..., at these seconds,
    after one second of training each."""
    kinds = ["trial_started", *["report"] * (len(seconds) - 1)]
    return [
        {"kind": kind, "trial_id": "t0000", "step": step, "time": f"2026-01-01T00:00:{s:09.6f}"}
        | ({"seconds": float(step)} if step else {})
        for step, (kind, s) in enumerate(zip(kinds, seconds, strict=True))
    ]


def test_delay_is_by_how_much_a_trial_waited_longer_than_without_a_cut() -> None:
    uncut = [list_waits(log_trial(0, 2, 4)), list_waits(log_trial(0, 3, 5))]
    assert uncut[0] == {
        ("t0000", "trial_started", 0): 0.0,
        ("t0000", "report", 1): 1.0,
        ("t0000", "report", 2): 1.0,
    }
    assert find_largest_delay(list_waits(log_trial(1, 3, 8.5)), uncut) == 3.5
    assert find_largest_delay(uncut[0], uncut) == 0.0


def test_what_the_server_lacks_or_has_twice_is_a_fault() -> None:
    server = WandbServer()
    server.stop()
    log = log_trial(0, 1, 2)
    assert len(list_faults(log, server)) == 2
    for name, run_id in (("t0000", "a"), ("summary", "b")):
        server.runs[run_id] = ServedRun(facts={"displayName": name})
    server.rows["a"] = [{"_step": 1}, {"_step": 2}]
    assert list_faults(log, server) == []
    server.rows["a"] += [{"_step": 2}]
    assert list_faults(log, server) == ["t0000 has the steps [[1, 2, 2]] instead of [1, 2]"]
