"""What the operator named, as a list of sources: each with an id, and the name its archive will have.

A SRC is a file, a folder (searched for video files by suffix), a glob, a list file (``@list.txt`` or
``list.txt``, one SRC a line, ``#`` comments) or an ``s3://`` object or prefix. Looks at names only; nothing
here opens a video.

A source's id is a hash of its URI alone. Content would not do: a source that cannot be read needs an id as
well, and two copies are two videos. Size or store tag would not do: a repaired source should supersede its
failure in the manifest. What tells a source's versions apart is the SHA-256 in the manifest and in every
staging key.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from s2vc_ray.errors import ConfigError
from s2vc_ray.storage import local_path, open_source, open_storage

_SUFFIXES = """
    3g2 3gp avi dv flv h264 hevc ivf m2ts m2v m4v mkv mov mp4 mpe mpeg mpg mts mxf ogm ogv qt rm ts vob webm
    wmv y4m
"""
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
_LIST_SUFFIX = ".txt"


@dataclass(frozen=True, slots=True)
class Source:
    """One video: ``uri`` is an absolute path or ``s3://bucket/key``; ``name`` is relative, with slashes."""

    uri: str
    name: str

    @property
    def video_id(self) -> str:
        """16 hex digits that identify ``uri``."""
        return hashlib.sha256(self.uri.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def archive_key(self) -> str:
        """Where the archive goes under the destination."""
        return f"{self.name}.s2vc"


def list_sources(arguments: Sequence[str]) -> list[Source]:
    """Every source the arguments name, in their order, each once.

    A source that does not exist is listed all the same when it is named outright: it becomes a failure of
        its own.

    Raises:
        ConfigError: a folder, glob, list or prefix without a video; or two sources that want one archive
            name.
    """
    found: dict[str, Source] = {}
    owners: dict[str, str] = {}
    for argument in arguments:
        for source in _expand(argument):
            if source.uri in found:
                continue
            other = owners.setdefault(source.name, source.uri)
            if other != source.uri:
                raise ConfigError(
                    f"{other} and {source.uri} would both be stored as {source.archive_key}: "
                    "name a folder above both, or compress them into different destinations"
                )
            found[source.uri] = source
    return list(found.values())


@contextlib.contextmanager
def open_media(uri: str) -> Iterator[str | BinaryIO]:
    """A source as FFmpeg likes it best: a local path as it is, anything else as a seekable stream."""
    if uri.startswith("s3://"):
        with open_source(uri) as stream:
            yield stream
    else:
        yield str(local_path(uri))


def _expand(argument: str) -> list[Source]:
    if argument.startswith("@"):
        return _from_list(Path(argument[1:]))
    if argument.startswith("s3://"):
        return _from_s3(argument)
    path = Path(os.path.abspath(local_path(argument)))
    if path.is_dir():
        return _from_folder(path)
    if path.is_file() and path.suffix.lower() == _LIST_SUFFIX:
        return _from_list(path)
    if glob.has_magic(argument) and not path.exists():
        return _from_glob(argument)
    return [Source(str(path), path.name)]


def _from_folder(root: Path) -> list[Source]:
    found = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in VIDEO_SUFFIXES
    )
    if not found:
        raise ConfigError(
            f"{root}: no video files in this folder (looked for {' '.join(sorted(VIDEO_SUFFIXES))})"
        )
    return [Source(str(path), path.relative_to(root).as_posix()) for path in found]


def _from_glob(pattern: str) -> list[Source]:
    paths = [Path(os.path.abspath(name)) for name in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in paths if path.is_file()]
    if not files:
        raise ConfigError(f"{pattern}: no file matches")
    parts = Path(os.path.abspath(pattern)).parts
    fixed = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    return [Source(str(path), path.relative_to(root).as_posix()) for path in files]


def _from_list(path: Path) -> list[Source]:
    """Entries are relative to the list, and stored under their names below the folder they have in common."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"list file {path} cannot be read: {error}") from error
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise ConfigError(f"list file {path} names no source")
    uris = [
        entry if entry.startswith("s3://") else os.path.abspath(path.parent / local_path(entry))
        for entry in entries
    ]
    folders = {uri.rpartition("/")[0] for uri in uris}
    if len({uri.startswith("s3://") for uri in uris}) > 1:
        raise ConfigError(f"list file {path} mixes local files and s3:// objects: split it in two")
    common = os.path.commonpath([folder.removeprefix("s3://") or "/" for folder in folders])
    root = f"s3://{common}" if uris[0].startswith("s3://") else common
    return [Source(uri, uri.removeprefix(root).lstrip("/")) for uri in uris]


def _from_s3(uri: str) -> list[Source]:
    """An object of that very name, else everything with a video's suffix below it as a prefix."""
    root = uri.rstrip("/")
    folder, _, name = uri.rpartition("/")
    if name and folder != "s3:/":
        # A video's name that is no object is a source that is missing: its failure row will say so.
        is_video = Path(name).suffix.lower() in VIDEO_SUFFIXES
        if is_video or open_storage(folder).stat(name) is not None:
            return [Source(uri, name)]
    found = [
        item.key for item in open_storage(root).list() if Path(item.key).suffix.lower() in VIDEO_SUFFIXES
    ]
    if not found:
        raise ConfigError(f"{uri}: no object of that name, and no video below that prefix")
    return [Source(f"{root}/{key}", key) for key in found]
