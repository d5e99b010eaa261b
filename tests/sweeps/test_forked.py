"""Which sweeps fork their packs: those that start a Ray of their own."""

import dataclasses

import pytest

from sweeps import forked
from sweeps.config import Engine
from sweeps.recipes import samsum


@pytest.mark.parametrize(
    ("engine", "address", "is_forked"),
    [("packed", "", True), ("packed", "local", True), ("packed", "10.0.0.1:6379", False),
     ("packed", "auto", False), ("solo", "", False)],
)  # fmt: skip
def test_packs_of_this_machine_are_forked(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, address: str, is_forked: bool
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("cluster.find.running_address", lambda: None)
    with forked.packs(dataclasses.replace(samsum(True), engine=engine)) as command:
        assert (command is not None) == is_forked
