"""Where a pack's time goes: seconds by activity and by trial."""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from trainables.errors import SweepAborted
from trainables.files import write_atomic
from trainables.storage import fetch_files, put_file

Activity = Literal[
    "load", "probe", "admit", "train", "evaluate", "report", "decide", "test", "idle"
]
"""Reading base and rows; the probe; placing trials in slots; optimizer steps; scoring,
and saving meanwhile; what saving takes longer, and telling; waiting for trials' decisions; the
final test; having no trial."""
Work = Literal["trained", "scored", "saved"]

OVERDUE_AFTER_S, FIRST_OVERDUE_AFTER_S, OVERDUE_FACTOR = 600.0, 3600.0, 20.0
"""A loop hangs that does one thing for so long, and so many times longer than as much of it took
ever before; the first time of anything may take longer, by a second for each part of it."""

FOLDER_NAME = ".ledgers"
"""In the checkpoints' folder: one file a pack that ever ran for the sweep."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one trial took of a pack."""

    seconds: float = 0.0
    """Seconds of the pack's wall time."""
    trained_tokens: int = 0
    """Real tokens of its optimizer steps, those that were lost and repeated included."""
    scored_tokens: int = 0
    """Tokens of the prompts and targets that it was scored on; answers are not counted."""

    def __add__(self, other: "Share") -> "Share":
        return Share(
            seconds=self.seconds + other.seconds,
            trained_tokens=self.trained_tokens + other.trained_tokens,
            scored_tokens=self.scored_tokens + other.scored_tokens,
        )


@dataclass(kw_only=True)
class Ledger:
    """What a pack has done so far."""

    device: str
    """Name of the GPU, or "cpu"."""
    started: float
    """When the pack's process began with it, in Unix time."""
    seconds: dict[str, float]
    """By activity; they sum to the wall time of the pack."""
    shares: dict[str, Share] = field(default_factory=dict)
    """By trial; what they leave of the wall time is overhead: loading, admission, waiting, test."""
    trial_steps: int = 0
    """Optimizer steps, summed over trials."""
    real_tokens: int = 0
    """Training tokens that are not there to fill up a pass."""
    computed_tokens: int = 0
    """Places of all passes."""
    peak_gib: float = 0.0
    """Highest memory: allocated on the GPU, or resident in the process on a CPU."""
    pack_id: str = ""
    """Unique in the sweep; empty in the ledger of an older version."""
    node: str = ""
    """IP address of its node; empty outside a cluster."""
    gpu: str = ""
    """Ray's number of the GPU on that node; empty on a CPU."""

    @property
    def wall_s(self) -> float:
        """Seconds that the pack held its GPU."""
        return sum(self.seconds.values())


class LedgerKeeper:
    """Keeps the ledger of one loop; each moment belongs to one activity. Thread-safe.

    Args:
        device: see Ledger; a loop may set it later.
        since_s: time.monotonic() at which the pack's time begins; now if not given.
    """

    def __init__(self, device: str, since_s: float | None = None) -> None:
        self._lock = threading.Lock()
        self.device = device
        self.pack_id = uuid.uuid4().hex[:8]
        self._activity: Activity = "load"
        now_s = time.monotonic()
        self._since_s = now_s if since_s is None else since_s
        self._turned_s = self._since_s
        self._num_parts = 1
        self._longest_s: dict[Activity, float] = {}
        """By activity, for one part of it."""
        self._uncharged_s = 0.0
        self._has_ended = False
        self._ledger = Ledger(
            device=device,
            started=time.time() - (now_s - self._since_s),
            seconds=dict.fromkeys(get_args(Activity), 0.0),
            pack_id=self.pack_id,
        )

    def begin_activity(self, activity: Activity, num_parts: int = 1) -> None:
        """The loop does something else from now on; what was not charged before is overhead.

        Args:
            num_parts: how much there is of it, such as rows to score.
        """
        with self._lock:
            self._settle()
            took_s = (self._since_s - self._turned_s) / self._num_parts
            self._longest_s[self._activity] = max(took_s, self._longest_s.get(self._activity, 0.0))
            self._turned_s = self._since_s
            self._activity, self._num_parts = activity, num_parts
            self._uncharged_s = 0.0

    def describe_overdue(self) -> str:
        """What the loop has been doing for so long that it must hang; empty if it does not.

        Loading may take any time, and so may the final test, which is done once.
        """
        with self._lock:
            if self._activity in ("load", "probe", "test", "idle"):
                return ""
            took_s = time.monotonic() - self._turned_s
            part_s, num_parts = self._longest_s.get(self._activity), self._num_parts
        if part_s is None:
            limit_s, expectation = FIRST_OVERDUE_AFTER_S + num_parts, "for the first time"
        else:
            limit_s = max(OVERDUE_AFTER_S, OVERDUE_FACTOR * part_s * num_parts)
            expectation = f"where {part_s * num_parts:.1f} s at most were to be expected"
        hangs = f"its loop hangs: {self._activity} for {took_s:.0f} s, {expectation}"
        return hangs if took_s > limit_s else ""

    def charge(self, amounts: Mapping[str, int], work: Work) -> None:
        """Divide the time since the last turn or charge among trials.

        Args:
            amounts: by trial, in proportion to which it is divided: tokens trained or scored;
                1 each for what is divided evenly ("saved").
        """
        total = sum(amounts.values())
        with self._lock:
            self._settle()
            if total == 0:
                return
            shares = self._ledger.shares
            for trial_id, amount in amounts.items():
                shares[trial_id] = shares.get(trial_id, Share()) + Share(
                    seconds=self._uncharged_s * amount / total,
                    trained_tokens=amount if work == "trained" else 0,
                    scored_tokens=amount if work == "scored" else 0,
                )
            self._uncharged_s = 0.0

    def get_seconds(self, trial_id: str) -> float:
        """What a trial was charged with so far."""
        with self._lock:
            return self._ledger.shares.get(trial_id, Share()).seconds

    def end(self) -> None:
        """Nothing more is counted."""
        with self._lock:
            self._settle()
            self._has_ended = True

    def count_step(self, trial_steps: int, real_tokens: int, computed_tokens: int) -> None:
        """Add one step of the pack."""
        with self._lock:
            self._ledger.trial_steps += trial_steps
            self._ledger.real_tokens += real_tokens
            self._ledger.computed_tokens += computed_tokens

    def copy_ledger(self, peak_gib: float = 0.0) -> Ledger:
        """A copy that no longer changes."""
        with self._lock:
            self._settle()
            return replace(
                self._ledger,
                device=self.device,
                seconds=dict(self._ledger.seconds),
                shares=dict(self._ledger.shares),
                peak_gib=peak_gib,
            )

    def _settle(self) -> None:
        now_s = time.monotonic()
        if not self._has_ended:
            self._ledger.seconds[self._activity] += now_s - self._since_s
            self._uncharged_s += now_s - self._since_s
        self._since_s = now_s


def make_ledger_path(checkpoints: Path) -> Path:
    """Where a new pack of the sweep keeps its ledger; names rise with time."""
    folder = checkpoints / FOLDER_NAME
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json"


def write_ledger(ledger: Ledger, path: Path, run_url: str | None = None) -> None:
    """Replace a ledger's file at once, so that a reader finds a whole one whenever it looks.

    Args:
        run_url: of the run on object storage, to which it is copied too.

    Raises:
        OSError: the disk is full or gone; the older file stays.
    """
    write_atomic(path, json.dumps(asdict(ledger)))
    if run_url is not None:
        # Nobody waits for what costs figures only; the next copy has all.
        with contextlib.suppress(SweepAborted):
            put_file(f"{run_url}/checkpoints/{FOLDER_NAME}/{path.name}", path, is_repeated=False)


def read_ledgers(checkpoints: Path, run_url: str | None = None) -> list[Ledger]:
    """Ledgers of all packs that ever ran for the sweep, dead ones included, oldest first.

    What cannot be read (a file that another version wrote) is left out: it costs figures only.
    """
    if run_url is not None:
        with contextlib.suppress(SweepAborted):
            fetch_files(f"{run_url}/checkpoints/{FOLDER_NAME}", checkpoints / FOLDER_NAME)
    ledgers = []
    for path in sorted((checkpoints / FOLDER_NAME).glob("*.json")):
        with contextlib.suppress(OSError, ValidationError):
            ledgers.append(TypeAdapter(Ledger).validate_json(path.read_bytes()))
    return ledgers
