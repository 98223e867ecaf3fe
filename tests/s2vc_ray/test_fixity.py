"""Checksums against published values."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import time
from pathlib import Path

import pytest

from s2vc_ray.errors import StorageError
from s2vc_ray.fixity import Fixity, crc32c, fixity, sha256_hex
from s2vc_ray.range_stream import RangeStream

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_crc32c_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4
    assert crc32c(b"") == 0


def test_crc32c_continues_and_takes_any_buffer() -> None:
    assert crc32c(b"56789", crc32c(b"1234")) == crc32c(b"123456789")
    assert crc32c(bytearray(b"123456789")) == crc32c(memoryview(b"123456789")) == 0xE3069283


def test_sha256_of_bytes_paths_and_streams(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_hex(b"abc") == ABC
    assert sha256_hex(tmp_path / "abc") == ABC
    assert sha256_hex(str(tmp_path / "abc")) == ABC
    stream = io.BytesIO(b"xxabc")
    stream.seek(2)
    assert fixity(stream) == Fixity(3, ABC)


def test_large_streams_are_read_in_pieces() -> None:
    class Piecewise(io.RawIOBase):
        left = 5_000_000

        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= 1 << 20
            size = min(size, self.left)
            self.left -= size
            return b"z" * size

    assert fixity(Piecewise()) == Fixity(5_000_000, hashlib.sha256(b"z" * 5_000_000).hexdigest())  # type: ignore[arg-type]


def test_a_missing_path_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fixity(tmp_path / "absent")


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (4 << 20) + 1, (21 << 20) + 7])
@pytest.mark.parametrize("start", [0, 3])
def test_a_remote_object_is_read_by_two_requests_at_a_time(size: int, start: int) -> None:
    data = random.Random(size).randbytes(size)
    under_way, most, asked, lock = 0, 0, [], threading.Lock()

    def read_range(begin: int, end: int) -> bytes:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            asked.append((begin, end))
        time.sleep(0.01 if begin < (1 << 20) else 0)  # the first answer comes last
        with lock:
            under_way -= 1
        return data[begin:end]

    with RangeStream(size, read_range).buffered() as stream:
        stream.read(start)
        asked.clear()
        assert fixity(stream) == Fixity(len(data[start:]), hashlib.sha256(data[start:]).hexdigest())
        assert stream.read(1) == b""
        assert fixity(stream).size == 0
        stream.seek(0)
        assert stream.read() == data
    assert most <= 2
    assert len([one for one in asked if one[1] - one[0] <= 4 << 20]) <= size // (4 << 20) + 3


def test_what_goes_wrong_far_away_is_raised_here() -> None:
    def read_range(begin: int, end: int) -> bytes:
        if begin:
            raise StorageError("replaced")
        return bytes(end - begin)

    with (
        RangeStream(30 << 20, read_range).buffered() as stream,
        pytest.raises(StorageError, match="replaced"),
    ):
        fixity(stream)
