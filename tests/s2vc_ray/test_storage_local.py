"""What only the folder backend promises: crashes, file systems without links, odd names."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s2vc_ray.errors import ObjectMissing, StorageError
from s2vc_ray.storage_local import LocalStorage
from tests.destinations import sweep


def test_a_writer_killed_before_publishing_leaves_no_object(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from s2vc_ray.storage_local import LocalStorage\n"
        "os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "LocalStorage(sys.argv[1]).put('a/k', b'x' * 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    storage = LocalStorage(tmp_path)
    assert storage.stat("a/k") is None
    assert list(storage.list()) == []
    assert len(list((tmp_path / "a").iterdir())) == 1
    assert sweep(storage, older_than=3600) == 0, "it may still be at work"
    assert sweep(storage, older_than=-1) == 1
    assert list((tmp_path / "a").iterdir()) == []
    assert storage.put("a/k", b"y")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_disk_that_is_full_at_the_end_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, no_space)
    with pytest.raises(
        StorageError, match=f"{os.strerror(number)}; nothing was left half-written: make room"
    ):
        LocalStorage(tmp_path).put("k", b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_disk_that_is_full_midway_leaves_what_was_there(tmp_path: Path, overwrite: bool) -> None:
    """The limit on file sizes stands for the disk's: the kernel itself stops the write after a megabyte."""
    storage = LocalStorage(tmp_path / "out")
    if overwrite:
        storage.put("a/k", b"old")
    (tmp_path / "big").write_bytes(bytes(3 << 20))
    script = (
        "import resource, sys\n"
        "from s2vc_ray.errors import StorageError\n"
        "from s2vc_ray.storage_local import LocalStorage\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "storage = LocalStorage(sys.argv[1])\n"
        "for put in (lambda: storage.put_file('a/k', sys.argv[2], overwrite=True),\n"
        "            lambda: storage.put('a/k', bytes(3 << 20), overwrite=True)):\n"
        "    try: put()\n"
        "    except StorageError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(storage.root), str(tmp_path / "big")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.count("nothing was left half-written: make room") == 2
    assert [path.name for path in storage.root.rglob("*") if path.is_file()] == (["k"] if overwrite else [])
    assert storage.stat("a/k") is None or storage.read("a/k") == b"old"


def test_racers_that_publish_at_one_moment_have_one_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    real_fsync = os.fsync
    barrier = threading.Barrier(8)

    def put(number: int, key: str) -> bool:
        met = False

        def fsync_then_meet(handle: int) -> None:
            nonlocal met
            real_fsync(handle)
            if not met:
                met = True
                barrier.wait()

        hooks.fsync = fsync_then_meet
        return storage.put(key, b"%d" % number)

    hooks = threading.local()
    monkeypatch.setattr(os, "fsync", lambda handle: hooks.fsync(handle))
    (tmp_path / "race").mkdir()
    with ThreadPoolExecutor(8) as pool:
        for attempt in range(30):
            won = list(pool.map(put, range(8), [f"race/{attempt}"] * 8))
            assert sum(won) == 1
            assert storage.read(f"race/{attempt}") == b"%d" % won.index(True)


def test_without_hard_links_one_racer_still_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    storage = LocalStorage(tmp_path)
    for attempt in range(20):
        key = f"race/{attempt}"
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda number, key=key: storage.put(key, b"%d" % number), range(8)))
        assert sum(won) == 1
        assert storage.read(key) == b"%d" % won.index(True)
    assert sweep(storage, older_than=-1) == 0


def test_only_plain_files_are_objects(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put("a/b", b"x")
    assert storage.stat("a") is None
    assert storage.stat("a/b/c") is None
    for key in ("a", "a/b/c"):
        with pytest.raises(ObjectMissing):
            storage.read(key)
    for key in ("a", "a/b/c"):
        with pytest.raises(StorageError, match="cannot write"):
            storage.put(key, b"y")
    assert storage.read("a/b") == b"x"


def test_delete_leaves_no_empty_folders_but_the_root(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "root")
    storage.put("a/b/c", b"x")
    storage.put("a/k", b"x")
    storage.delete("a/b/c")
    assert not (tmp_path / "root/a/b").exists()
    storage.delete("a/k")
    assert list((tmp_path / "root").iterdir()) == []


def test_puts_and_deletes_side_by_side_do_not_trip(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)

    def work(number: int) -> None:
        for _ in range(50):
            assert storage.put(f"stage/v/{number}", b"x")
            storage.delete(f"stage/v/{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert list(storage.list()) == []


def test_objects_get_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        LocalStorage(tmp_path).put("k", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o640


def test_names_that_are_no_keys_are_passed_over_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "good").write_bytes(b"x")
    (tmp_path / "back\\slash").write_bytes(b"x")
    (tmp_path / os.fsdecode(b"latin\xe9")).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        assert [found.key for found in LocalStorage(tmp_path).list()] == ["good"]
    assert len(caplog.records) == 2


def test_listing_is_ascending_by_whole_key(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    keys = ["a-b", "a/b", "a/b.c", "a/d/c", "a0", "ab/x", "b"]
    for key in reversed(keys):
        storage.put(key, b"")
    assert [found.key for found in storage.list()] == keys


def test_an_unreadable_folder_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(StorageError, match=r"cannot list .*: Permission denied"):
        list(LocalStorage(tmp_path).list())


def test_a_folder_that_cannot_be_written_to_is_as_old_as_this_machine_says(tmp_path: Path) -> None:
    assert abs(LocalStorage(tmp_path / "none").now() - time.time()) < 60
    assert not (tmp_path / "none").exists()


def test_only_hidden_temporary_files_are_ours(tmp_path: Path) -> None:
    (tmp_path / "visible.s2vc-tmp").touch()
    (tmp_path / ".link.s2vc-tmp").symlink_to(tmp_path / "visible.s2vc-tmp")
    (tmp_path / ".folder.s2vc-tmp").mkdir()
    storage = LocalStorage(tmp_path)
    assert list(storage.unfinished()) == []
    assert sweep(storage, older_than=-60) == 0
    assert len(list(tmp_path.iterdir())) == 3


def test_a_relative_root_is_fixed_when_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = LocalStorage("out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    storage.put("k", b"x")
    assert (tmp_path / "out/k").read_bytes() == b"x"
