"""W&B's offline files, read back as the runs that they hold."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2


@dataclass
class Run:
    """What one .wandb file holds."""

    record: Any
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    exit_code: int | None

    @property
    def steps(self) -> list[int]:
        return [row["_step"] for row in self.rows]


def read_records(path: Path) -> Iterator[Any]:
    """Records of a .wandb file: a 7-byte header, then a LevelDB log of protobuf messages."""
    content, position, message = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left_bytes = 32768 - position % 32768
        if left_bytes < 7:
            position += left_bytes
            continue
        size_bytes, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        message += content[position + 7 : position + 7 + size_bytes]
        position += 7 + size_bytes
        if kind in (1, 4):  # whole, or last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            message = b""
            yield record


def read_run(folder: Path) -> Run:
    (path,) = folder.glob("*.wandb")
    run = Run(record=None, config={}, rows=[], summary={}, exit_code=None)
    for record in read_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.record = record.run
            run.config = {i.key: json.loads(i.value_json) for i in record.run.config.update}
        elif kind == "history":
            run.rows.append(
                {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }
            )
        elif kind == "summary":
            for item in record.summary.update:
                run.summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def offline_runs(folder: Path) -> dict[str, Run]:
    """By display name; asserts that no two folders are of one trial."""
    runs = [read_run(path) for path in sorted(folder.glob("wandb/offline-run-*"))]
    by_name = {run.record.display_name: run for run in runs}
    assert len(by_name) == len(runs)
    return by_name
