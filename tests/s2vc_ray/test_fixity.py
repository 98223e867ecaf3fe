"""Checksums against published values."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from s2vc_ray.fixity import Fixity, crc32c, fixity, sha256_hex

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
