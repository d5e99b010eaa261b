"""Databases of the study and object storage that do not answer, or are none."""

import contextlib
import sqlite3
from pathlib import Path

from tests.benchmarks.mistakes.damage import Damage, make_folder
from tests.benchmarks.mistakes.mistake import Mistake

DEAD = "127.0.0.1:9"
STUDY = "sweeps.run samsum --tiny --study-storage {}"
CHECKPOINTS = "sweeps.run samsum --tiny --name night --checkpoints {}"
S3 = {
    "AWS_ENDPOINT_URL": f"http://{DEAD}",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
NO_KEYS = {"AWS_ENDPOINT_URL": f"http://{DEAD}", "AWS_EC2_METADATA_DISABLED": "true"}
FULL = "mount -t tmpfs -o size=64k tmpfs /mnt && (cat /dev/zero >/mnt/f 2>/dev/null || true)"
READ_ONLY = "mount --bind /mnt /mnt && mount -o remount,ro,bind /mnt"


def _make_tables(here: Path) -> None:
    """A database of SQLite that is not Optuna's."""
    with contextlib.closing(sqlite3.connect(here / "x.db")) as database, database:
        database.execute("create table studies (name text)")


STUDIES: list[tuple[str, str, Damage | None, str]] = [
    ("is no URL", "optuna.db", None, "optuna.db"),
    ("is empty", "''", None, "study storage"),
    ("is the URL of a page", "https://example.org/study", None, "https"),
    ("has a dialect that is none", "postgresq://u@h/x", None, "postgresq"),
    ("has a driver that is none", "postgresql+nothing://u@h/x", None, "nothing"),
    ("has a driver that is not installed", "oracle://u@h/x", None, "oracle"),
    ("is Redis", "redis://127.0.0.1:9/0", None, "redis"),
    ("has a port that is none", "postgresql+psycopg://u@127.0.0.1:port/x", None, "127.0.0.1:port"),
    ("is PostgreSQL that refuses", f"postgresql+psycopg://u@{DEAD}/x", None, DEAD),
    ("is PostgreSQL with a password", f"postgresql+psycopg://u:pass@{DEAD}/x", None, DEAD),
    ("is PostgreSQL without a host", "postgresql+psycopg:///x", None, "postgresql"),
    (
        "is PostgreSQL of an unknown host",
        "postgresql+psycopg://u@no.such.host.invalid/x",
        None,
        "no.such.host.invalid",
    ),
    ("is PostgreSQL that never answers", "postgresql+psycopg://u@192.0.2.1/x", None, "192.0.2.1"),
    ("is MySQL that refuses", f"mysql+pymysql://u@{DEAD}/x", None, "mysql"),
    ("is a text file", "sqlite:///x.txt", None, "x.txt"),
    ("is a folder", "sqlite:///x", make_folder("x"), "x"),
    ("is in a folder that is not there", "sqlite:///gone/x.db", None, "gone/x.db"),
    ("has other tables", "sqlite:///x.db", _make_tables, "x.db"),
    ("has two slashes", "sqlite://x.db", None, "x.db"),
]

URLS: list[tuple[str, str, dict[str, str], str]] = [
    ("has no scheme", "bucket/folder", {}, "bucket/folder"),
    ("is empty", "''", {}, "checkpoints"),
    ("has an unknown scheme", "ftp://bucket/folder", {}, "ftp://bucket/folder"),
    ("is a page", "https://bucket.example.org/folder", {}, "https://"),
    ("has one slash", "s3:/bucket/folder", {}, "s3:/bucket/folder"),
    ("names no bucket", "s3://", {}, "s3://"),
    ("names no bucket but a folder", "s3:///folder", {}, "s3:///folder"),
    ("holds a key", "s3://key:secret@bucket/folder", S3, "bucket/folder"),
    ("is S3 that refuses", "s3://bucket/folder", S3, "s3://bucket/folder"),
    ("is S3 without keys", "s3://bucket/folder", NO_KEYS, "s3://bucket/folder"),
    (
        "is S3 with a profile that is none",
        "s3://bucket/folder",
        NO_KEYS | {"AWS_PROFILE": "nobody"},
        "nobody",
    ),
    (
        "is S3 at no URL",
        "s3://bucket/folder",
        S3 | {"AWS_ENDPOINT_URL": "localhost"},
        "s3://bucket/folder",
    ),
    ("is a bucket that no name is", "s3://Bu_cket!/folder", S3, "Bu_cket!"),
    ("is Google without its library", "gs://bucket/folder", {}, "gs://bucket/folder"),
    ("is Azure", "az://bucket/folder", {}, "az://bucket/folder"),
    ("is memory", "memory://folder", {}, "memory://folder"),
    ("is a relative file", "file://x", {}, "file://x"),
    ("is a file of another host", "file://host/x", {}, "file://host/x"),
    ("cannot be made", "file:///proc/x", {}, "file:///proc/x"),
    ("is under a file", "file:///etc/passwd/x", {}, "/etc/passwd"),
    ("has a query", "'s3://bucket/folder?versionId=3'", S3, "s3://bucket/folder"),
]

MISTAKES = [
    *(
        Mistake(
            kind="storage",
            title=f"--study-storage {title}",
            command=STUDY.format(url),
            files={"x.txt": "no database\n" * 400},
            prepare=prepare,
            named=named,
        )
        for title, url, prepare, named in STUDIES
    ),
    *(
        Mistake(
            kind="storage",
            title=f"--checkpoints {title}",
            command=CHECKPOINTS.format(url),
            environment=environment,
            named=named,
        )
        for title, url, environment, named in URLS
    ),
    Mistake(
        kind="storage",
        title="--checkpoints is read-only",
        command=CHECKPOINTS.format("file:///mnt/x"),
        mounts=READ_ONLY,
        named="/mnt/x",
    ),
    Mistake(
        kind="storage",
        title="--checkpoints of a resume that never began",
        command=CHECKPOINTS.format("s3://bucket/folder") + " --resume",
        environment=S3,
        named="s3://bucket/folder",
    ),
    Mistake(
        kind="storage",
        title="--study-storage is read-only",
        command=STUDY.format("sqlite:////mnt/x.db"),
        mounts=READ_ONLY,
        named="/mnt/x.db",
    ),
    Mistake(
        kind="storage",
        title="--checkpoints of a resume that is not there",
        command=CHECKPOINTS.format("file:///tmp/no-such-folder") + " --resume",
        named="night",
    ),
]
