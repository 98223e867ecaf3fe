"""Storage in a local folder: every object one file, written beside its final name and then linked to it.

A crash at any moment leaves either the whole object or a hidden temporary file, which `s2vc gc` removes.
Linking, unlike renaming, fails when the name exists: that makes put-if-absent free of races, on NFS too.
Nothing is written or removed through a symbolic link that leads out of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from s2vc_ray.errors import ObjectMissing, StorageError
from s2vc_ray.storage import TEMPORARY_SUFFIX, ObjectStat, Unfinished, check_key, check_range

_log = logging.getLogger(__name__)
_COPY_BYTES = 1 << 20
_CREATE_ATTEMPTS = 100
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


@contextlib.contextmanager
def local_errors(action: str) -> Iterator[None]:
    """Turn operating system errors into StorageErrors that name ``action``."""
    try:
        yield
    except OSError as error:
        text = error.strerror or str(error)
        if error.errno in _FULL:
            text += "; nothing was left half-written: make room and run the same command again"
        raise StorageError(f"cannot {action}: {text}") from error


def open_file(path: Path) -> BinaryIO:
    """The file at ``path`` for reading.

    Raises:
        ObjectMissing: there is no such file, or a folder in its place.
        StorageError: it cannot be opened.
    """
    with local_errors(f"open {path}"):
        try:
            return path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissing(f"no such file: {path}") from error


def stat_file(path: Path, key: str) -> ObjectStat | None:
    """The regular file at ``path`` as an object named ``key``; ``None`` when there is none.

    Raises:
        StorageError: the path cannot be examined.
    """
    with local_errors(f"examine {path}"):
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
    if not stat.S_ISREG(found.st_mode):
        return None
    # The inode tells files apart that were replaced within one tick of the file system's clock.
    etag = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"
    return ObjectStat(key, found.st_size, etag, found.st_mtime)


class LocalStorage:
    """Objects as files under the folder ``root``, which the first write creates. See `Storage`."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(root))

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.root)!r})"

    @property
    def uri(self) -> str:
        """The root as a ``file://`` URI."""
        return self.root.as_uri()

    def stat(self, key: str) -> ObjectStat | None:
        """See `Storage.stat`."""
        return stat_file(self._path(key), key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See `Storage.read`."""
        check_range(start, end)
        with self.open(key) as stream, local_errors(f"read {self._path(key)}"):
            stream.seek(start)
            return stream.read() if end is None else stream.read(end - start)

    def open(self, key: str) -> BinaryIO:
        """See `Storage.open`."""
        return open_file(self._path(key))

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> bool:
        """See `Storage.put`."""
        return self._put(key, io.BytesIO(data), overwrite)

    def put_file(self, key: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> bool:
        """See `Storage.put_file`. Copies: a link would share the file with whoever still writes to it."""
        with open_file(Path(path)) as source:
            return self._put(key, source, overwrite)

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """See `Storage.list`. Names that are no valid key are passed over with a warning in the log."""
        for key in self.keys(prefix):
            try:
                found = stat_file(self.root / key, key)
            except StorageError as error:
                _log.warning("not listed: %s", error)
                continue
            if found is not None:
                yield found

    def keys(self, prefix: str = "") -> Iterator[str]:
        """See `Storage.keys`. Not looked at, links to nothing and pipes are told from files by `list` alone."""
        for key in self._walk("", prefix):
            if not key.endswith(TEMPORARY_SUFFIX):
                try:
                    yield check_key(key)
                except StorageError as error:
                    _log.warning("not listed: %s", error)

    def delete(self, key: str) -> None:
        """See `Storage.delete`. Folders that become empty go too, the root stays."""
        path = self._path_inside(key)
        with local_errors(f"delete {path}"):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
        for parent in path.parents:
            if parent == self.root:
                break
            try:
                parent.rmdir()
            except OSError:
                # Not empty, or gone already: either way the rest of the way up is somebody else's.
                break

    def delete_many(self, keys: Iterable[str]) -> None:
        """See `Storage.delete_many`."""
        for key in keys:
            self.delete(key)

    def now(self) -> float:
        """See `Storage.now`. This machine's clock where the folder cannot be written to, or is not there yet."""
        probe = self.root / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
        try:
            probe.touch(exist_ok=False)
            try:
                return probe.stat().st_mtime
            finally:
                probe.unlink(missing_ok=True)
        except OSError:
            return time.time()

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """See `Storage.unfinished`: temporary files."""
        for key in self._walk("", prefix):
            path = self.root / key
            if path.name.startswith(".") and path.name.endswith(TEMPORARY_SUFFIX):
                with local_errors(f"examine {path}"), contextlib.suppress(FileNotFoundError):
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode):
                        yield Unfinished(key, "", found.st_mtime)

    def discard(self, write: Unfinished) -> None:
        """See `Storage.discard`."""
        path = self.root / write.key
        with local_errors(f"remove {path}"):
            path.unlink(missing_ok=True)

    def _put(self, key: str, source: BinaryIO, overwrite: bool) -> bool:
        final = self._path_inside(key)
        if not overwrite and self.stat(key) is not None:
            return False
        with local_errors(f"write {final}"), _temporary_beside(final) as (temporary, stream):
            shutil.copyfileobj(source, stream, _COPY_BYTES)
            return _publish(stream, temporary, final, overwrite)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _path_inside(self, key: str) -> Path:
        """The path to write to or delete; refused when a link on the way leads out of the root."""
        path = self._path(key)
        with local_errors(f"follow {path}"):
            if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(self.root)):
                raise StorageError(
                    f"key {key!r} leads out of {self.root} through a symbolic link; nothing was done"
                )
        return path

    def _walk(self, below: str, prefix: str) -> Iterator[str]:
        """Files in the order of their whole keys: a folder sorts as its name with the slash, not without."""
        folder = self.root / below
        with local_errors(f"list {folder}"):
            try:
                with os.scandir(folder) as entries:
                    names = sorted(e.name + "/" * e.is_dir(follow_symlinks=False) for e in entries)
            except (FileNotFoundError, NotADirectoryError):
                return
        for name in names:
            key = below + name
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix) or name.endswith(TEMPORARY_SUFFIX):
                yield key


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    temporary = path.parent / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
    with _create(temporary) as stream:
        try:
            yield temporary, stream
        finally:
            temporary.unlink(missing_ok=True)


def _create(path: Path) -> BinaryIO:
    for attempt in range(_CREATE_ATTEMPTS):
        missing = [folder for folder in path.parents if not folder.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("xb")
        except FileNotFoundError:
            # A delete elsewhere removed the folder while it was still empty.
            if attempt + 1 == _CREATE_ATTEMPTS:
                raise
            continue
        for folder in missing:
            _sync_folder(folder.parent)
        return stream
    raise AssertionError("unreachable")


def _publish(stream: BinaryIO, temporary: Path, final: Path, overwrite: bool) -> bool:
    stream.flush()
    os.fsync(stream.fileno())
    if overwrite:
        os.replace(temporary, final)
    elif not _link_if_absent(temporary, final):
        return False
    _sync_folder(final.parent)
    return True


def _link_if_absent(temporary: Path, final: Path) -> bool:
    try:
        os.link(temporary, final)
    except FileExistsError:
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder has that name", str(final)) from None
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_under_lock(temporary, final)
    return True


def _rename_under_lock(temporary: Path, final: Path) -> bool:
    """The same promise on file systems without hard links, such as exFAT: look and rename, one at a time."""
    import fcntl

    folder = os.open(final.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if os.path.lexists(final):
            return False
        os.rename(temporary, final)
        return True
    finally:
        os.close(folder)


def _sync_folder(folder: Path) -> None:
    """Make the folder's entries survive a power cut, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        # A folder may let us write into it without letting us read it.
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
