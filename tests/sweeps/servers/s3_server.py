"""An S3 server on this machine, and the environment by which its clients find it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from trainables import storage


@contextmanager
def serve_s3(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket, for this process and those that it starts meanwhile."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    bucket = f"runs-{uuid.uuid4().hex[:8]}"  # servers of one process share what they hold
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key-of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    try:
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # of an earlier server
        fs, _ = storage.open_url(f"s3://{bucket}")
        fs.mkdir(bucket)
        yield f"s3://{bucket}"
    finally:
        server.stop()
