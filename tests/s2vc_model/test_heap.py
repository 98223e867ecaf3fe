"""Free heap pages go back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

HOARD = """
import psutil
from s2vc_model.heap import give_back
resident = lambda: psutil.Process().memory_info().rss
kept = [bytearray(60_000) for _ in range(4000)]
last = kept[-1]
del kept
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps its heap in other ways")
def test_what_lies_free_below_a_living_block_is_returned() -> None:
    run = subprocess.run([sys.executable, "-c", HOARD], capture_output=True, text=True, check=True, timeout=100)
    assert int(run.stdout) > 100e6
