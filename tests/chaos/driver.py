"""``s2vc compress`` as a process of its own, which can be killed and started again with the same words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

FINISHED = frozenset({0, 1})
"""Exit codes of a job that came to its end; 1: some sources failed."""


class Driver:
    """One process; its output goes to ``log``."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "s2vc_ray.cli", "compress", *arguments]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ.copy()
            )

    @property
    def code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def crash(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def wait(self, seconds: float) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(seconds)

    def retries(self) -> int:
        """What its summary counted of requests and batches tried again; 0 when it was killed before."""
        text = self.log.read_text(errors="replace")
        return sum(map(int, re.findall(r"\b(?:s3_retries|batch_faults)\{[^}]*\} (\d+)", text)))

    def last_words(self, characters: int = 400) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-characters:].strip()
