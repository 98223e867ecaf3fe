"""Blocks read before: right bytes, few requests, bounded memory, and never another version's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from s2vc_ray.block_cache import BLOCK, BlockCache
from s2vc_ray.frames import decode_gop
from s2vc_ray.probe import probe
from s2vc_ray.range_stream import RangeReader
from s2vc_ray.sources import open_media
from s2vc_ray.split import split
from s2vc_ray.storage import open_storage
from tests.media import make_clip
from tests.seaweed import SeaweedServer


class Remote:
    """Bytes behind ranged reads that are counted."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def __call__(self, start: int, end: int) -> bytes:
        assert 0 <= start < end <= len(self.data)
        self.reads.append((start, end))
        return self.data[start:end]


def test_any_range_is_the_objects_own() -> None:
    rng = random.Random(1)
    remote = Remote(rng.randbytes(5 * BLOCK + 1234))
    read = BlockCache(3 * BLOCK).reader("a", len(remote.data), remote)
    for _ in range(300):
        start = rng.randrange(len(remote.data))
        end = rng.randrange(start + 1, min(len(remote.data), start + 2 * BLOCK) + 1)
        assert read(start, end) == remote.data[start:end]


def test_what_was_read_is_not_read_again() -> None:
    remote = Remote(bytes(4 * BLOCK))
    read = BlockCache().reader("a", len(remote.data), remote)
    read(10, BLOCK + 10)
    assert remote.reads == [(0, 2 * BLOCK)]
    read(BLOCK, 2 * BLOCK)
    assert len(remote.reads) == 1
    read(BLOCK, 3 * BLOCK)
    assert remote.reads[1:] == [(2 * BLOCK, 3 * BLOCK)]


def test_the_oldest_blocks_make_room() -> None:
    remote = Remote(bytes(4 * BLOCK))
    read = BlockCache(2 * BLOCK).reader("a", len(remote.data), remote)
    for at in (0, 1, 0, 2, 0):
        read(at * BLOCK, (at + 1) * BLOCK)
    assert len(remote.reads) == 3, "block 0 was used last when block 2 came"
    read(BLOCK, 2 * BLOCK)
    assert len(remote.reads) == 4


def test_versions_are_kept_apart() -> None:
    cache = BlockCache()
    old, new = Remote(b"old" * 100), Remote(b"new" * 100)
    assert cache.reader(("k", "1"), 300, old)(0, 3) == b"old"
    assert cache.reader(("k", "2"), 300, new)(0, 3) == b"new"
    assert cache.reader(("k", "1"), 300, old)(3, 6) == b"old"


@pytest.mark.s3
def test_a_sources_head_is_read_once_and_a_replaced_source_anew(
    seaweed_server: SeaweedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweed_server.env.items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{seaweed_server.new_bucket()}/in"
    clip = make_clip(tmp_path / "a.mp4", frames=24)
    storage = open_storage(uri)
    storage.put_file("a.mp4", clip)
    specs = split(probe(str(clip)), source_uri=f"{uri}/a.mp4", video_id="0", gop=8)
    reads = []
    cache = BlockCache()

    def counted(identity: object, size: int, read_range: RangeReader) -> RangeReader:
        def read(start: int, end: int) -> bytes:
            reads.append((start, end))
            return read_range(start, end)

        return BlockCache.reader(cache, identity, size, read)

    monkeypatch.setattr(cache, "reader", counted)
    pictures = []
    for spec in specs:
        with open_media(spec.source_uri, cache) as media:
            pictures.append(decode_gop(media, spec).frames.tobytes())
    assert len(reads) == 1, "the whole clip is smaller than the read-ahead"
    assert pictures == [decode_gop(str(clip), spec).frames.tobytes() for spec in specs]

    other = make_clip(tmp_path / "b.mp4", frames=24, seed=7)
    storage.put_file("a.mp4", other, overwrite=True)
    with open_media(specs[0].source_uri, cache) as media:
        assert (
            decode_gop(media, specs[0]).frames.tobytes() == decode_gop(str(other), specs[0]).frames.tobytes()
        )
    assert len(reads) == 2
