"""Programs and packages that some metrics borrow, and the one error when they are missing.

Everything here comes with the extra ``bench``; the codec itself needs none of it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from s2vc_model.errors import ModelError

INSTALL = "pip install 's2vc-ray[bench]'"


class ToolMissing(ModelError):
    """A package or program of the extra ``bench`` is not installed, or lacks what is asked of it."""


class ToolFailed(ModelError):
    """A borrowed program ended with an error; the message carries its words."""


def optional_package(module: str, purpose: str) -> ModuleType:
    """Import a package of the extra ``bench``.

    Raises:
        ToolMissing: it is not installed; the message names the purpose and the remedy.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ToolMissing(f"{purpose} needs the package that holds {error.name}: {INSTALL}") from error


@lru_cache(maxsize=1)
def ffmpeg_version() -> str:
    """The package that carries the ffmpeg program and the program's own version, for cache keys."""
    package = optional_package("imageio_ffmpeg", "the ffmpeg program")
    return f"imageio-ffmpeg {package.__version__}, ffmpeg {package.get_ffmpeg_version()}"


def run_ffmpeg(
    arguments: Sequence[str], purpose: str, data: bytes = b"", folder: Path | None = None
) -> bytes:
    """Run the ffmpeg program of ``imageio-ffmpeg``: ``data`` on its standard input, its output returned.

    Args:
        arguments: all but the program's name; errors only are reported.
        purpose: what it is needed for, for messages.
        data: standard input.
        folder: working folder; relative names in filter graphs need no escaping.

    Raises:
        ToolMissing: the package is not installed.
        ToolFailed: the program ended with an error.
    """
    program = optional_package("imageio_ffmpeg", purpose).get_ffmpeg_exe()
    command = [program, "-hide_banner", "-nostats", "-loglevel", "error", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, cwd=folder, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-500:]
        raise ToolFailed(f"{purpose}: ffmpeg ended with {done.returncode}: {words or 'without a word'}")
    return done.stdout
