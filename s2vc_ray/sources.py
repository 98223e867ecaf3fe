"""What the operator named, as a stream of sources: each with an id, and the name its archive will have.

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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from s2vc_ray.block_cache import BlockCache
from s2vc_ray.errors import ConfigError, SourceError
from s2vc_ray.storage import local_path, open_source, open_storage, stat_source
from s2vc_ray.versions import FRAME_LIST_SUFFIX, archive_key

_SUFFIXES = """
    3g2 3gp avi dv flv h264 hevc ivf m2ts m2v m4v mkv mov mp4 mpe mpeg mpg mts mxf ogm ogv qt rm ts vob webm
    wmv y4m
"""
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
_LIST_SUFFIX = ".txt"


@dataclass(frozen=True, slots=True)
class Source:
    """One video: ``uri`` is an absolute path or ``s3://bucket/key``; ``name`` is relative, with slashes.

    ``refused`` says why it cannot be compressed, where its name alone says so.
    """

    uri: str
    name: str
    refused: str = ""

    @property
    def video_id(self) -> str:
        """16 hex digits that identify ``uri``."""
        return hashlib.sha256(self.uri.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def archive_key(self) -> str:
        """Where the archive goes under the destination."""
        return archive_key(self.name)

    @property
    def frame_list_key(self) -> str:
        """Where the list of its decoded frames goes, beside the archive."""
        return self.name + FRAME_LIST_SUFFIX


def iter_sources(arguments: Sequence[str]) -> Iterator[Source]:
    """Every source the arguments name, in their order, each once; listed as they are asked for.

    A source that does not exist is listed all the same when it is named outright: it becomes a failure of
    its own. So does one that wants the archive name of another; its ``refused`` says so. Within one argument
    both cannot happen, so a single folder or prefix of any size takes no memory.

    Raises:
        ConfigError: at once, for a folder, glob, list or prefix without a video.
    """
    listings = [_peeked(_expand(argument)) for argument in arguments]
    return listings[0] if len(listings) == 1 else _distinct(chain.from_iterable(listings))


def _peeked(listing: Iterator[Source]) -> Iterator[Source]:
    """The same, its first source found already: what is wrong with an argument shows before the job starts."""
    return chain([next(listing)], listing)


def _distinct(listing: Iterable[Source]) -> Iterator[Source]:
    """Each source once; a second one under the same archive name is refused. Holds two numbers of each."""
    owners: dict[int, int] = {}
    seen: set[int] = set()
    for source in listing:
        video = int(source.video_id, 16)
        if video in seen:
            continue
        seen.add(video)
        if owners.setdefault(_number(source.name), video) != video:
            text = (
                f"{source.uri} would be stored as {source.archive_key}, and so is another source of this job: "
                "name a folder above both, or compress them into different destinations"
            )
            yield replace(source, refused=text)
        else:
            yield source


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8])


@contextlib.contextmanager
def open_media(uri: str, cache: BlockCache | None = None) -> Iterator[str | BinaryIO]:
    """A source as FFmpeg likes it best: a local path as it is, anything else as a seekable stream."""
    if uri.startswith("s3://"):
        with open_source(uri, cache=cache) as stream:
            yield stream
    else:
        yield str(local_path(uri))


def check_unchanged(uri: str, size: int, etag: str) -> None:
    """Raise SourceError unless the source has the size and the tag that it had."""
    now = stat_source(uri)
    if (now.size, now.etag) != (size, etag):
        raise SourceError(f"{uri}: changed while it was being compressed; run the job again")


def _expand(argument: str) -> Iterator[Source]:
    if argument.startswith("@"):
        return _distinct(_from_list(Path(argument[1:])))
    if argument.startswith("s3://"):
        return _from_s3(argument)
    path = Path(os.path.abspath(local_path(argument)))
    if path.is_dir():
        return _from_folder(path)
    if path.is_file() and path.suffix.lower() == _LIST_SUFFIX:
        return _distinct(_from_list(path))
    if glob.has_magic(argument) and not path.exists():
        return _from_glob(argument)
    return iter([Source(str(path), path.name)])


def _from_folder(root: Path) -> Iterator[Source]:
    """Depth first, each folder's files before its folders, both by name."""
    found = False
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in VIDEO_SUFFIXES:
                found = True
                yield Source(str(path), path.relative_to(root).as_posix())
    if not found:
        raise ConfigError(
            f"{root}: no video files in this folder (looked for {' '.join(sorted(VIDEO_SUFFIXES))})"
        )


def _from_glob(pattern: str) -> Iterator[Source]:
    parts = Path(os.path.abspath(pattern)).parts
    fixed = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    found = False
    for name in sorted(glob.iglob(pattern, recursive=True)):
        path = Path(os.path.abspath(name))
        if path.is_file():
            found = True
            yield Source(str(path), path.relative_to(root).as_posix())
    if not found:
        raise ConfigError(f"{pattern}: no file matches")


def _from_list(path: Path) -> Iterator[Source]:
    """Entries are relative to the list, and stored under their names below the folder they have in common."""
    common, remote = _common(path)
    root = f"s3://{common}" if remote else common
    for uri in _entries(path):
        yield Source(uri, uri.removeprefix(root).lstrip("/"))


def _common(path: Path) -> tuple[str, bool]:
    """The folder that a list file's entries have in common, and whether it is on S3."""
    common, kinds = "", set[bool]()
    for uri in _entries(path):
        folder = uri.rpartition("/")[0].removeprefix("s3://") or "/"
        common = os.path.commonpath([common, folder]) if kinds else folder
        kinds.add(uri.startswith("s3://"))
        if len(kinds) > 1:
            raise ConfigError(f"list file {path} mixes local files and s3:// objects: split it in two")
    if not kinds:
        raise ConfigError(f"list file {path} names no source")
    return common, kinds.pop()


def _entries(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                entry = line.strip()
                if entry.startswith("s3://"):
                    yield entry
                elif entry and not entry.startswith("#"):
                    yield os.path.abspath(path.parent / local_path(entry))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"list file {path} cannot be read: {error}") from error


def _from_s3(uri: str) -> Iterator[Source]:
    """An object of that very name, else everything with a video's suffix below it as a prefix."""
    root = uri.rstrip("/")
    # Refuses what is no bucket, credentials in the URI among it, before any row can quote it.
    open_storage(root)
    folder, _, name = uri.rpartition("/")
    if name and folder != "s3:/":
        # A video's name that is no object is a source that is missing: its failure row will say so.
        is_video = Path(name).suffix.lower() in VIDEO_SUFFIXES
        if is_video or open_storage(folder).stat(name) is not None:
            yield Source(uri, name)
            return
    found = False
    for item in open_storage(root).list():
        if Path(item.key).suffix.lower() in VIDEO_SUFFIXES:
            found = True
            yield Source(f"{root}/{item.key}", item.key)
    if not found:
        raise ConfigError(f"{uri}: no object of that name, and no video below that prefix")
