"""SeaweedFS that can be killed with SIGKILL and started again: same ports, same data, same credentials."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from botocore.exceptions import BotoCoreError, ClientError

from tests.seaweed import SeaweedServer, seaweed

_READY_SECONDS = 90


class RestartableStore:
    """A running server; `crash` and `restart` it as often as wanted."""

    def __init__(self, server: SeaweedServer, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._process = _process_in(folder)
        self._command = self._process.cmdline()
        self._environ = self._process.environ()

    @property
    def up(self) -> bool:
        """Whether the process is there."""
        return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE

    def crash(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start the same command again and wait until it can be written to; nothing when it still runs."""
        if self.up:
            return
        with (self._folder / "weed.log").open("ab") as log:
            started = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environ,
            )
        self._process = psutil.Process(started.pid)
        client, deadline = self.server.client(), time.monotonic() + _READY_SECONDS
        while True:
            try:
                # Buckets are listed some seconds before the volumes are there.
                bucket = self.server.new_bucket()
                client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
                client.delete_object(Bucket=bucket, Key="ready")
                return
            except (ClientError, BotoCoreError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def close(self) -> None:
        """Kill whatever runs now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def restartable_store(folder: Path) -> Iterator[RestartableStore]:
    """Start a server that keeps everything under ``folder``; kill it at the end."""
    with seaweed(folder) as server:
        store = RestartableStore(server, folder)
        try:
            yield store
        finally:
            store.close()


def _process_in(folder: Path) -> psutil.Process:
    for process in psutil.Process(os.getpid()).children():
        if process.cwd() == str(folder.resolve()):
            return process
    raise RuntimeError(f"no server of ours runs in {folder}")
