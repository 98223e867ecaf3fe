"""Folded headers: everything comes back, in fewer bytes, and what nobody folds is refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.archive import format as fmt
from s2vc_ray.archive.header import MAX_HEADER_BYTES
from s2vc_ray.archive.phrases import PHRASES, fold, unfold
from s2vc_ray.errors import CorruptArchive
from s2vc_ray.fixity import crc32c
from tests.archives import header

PAGE = Path(__file__).parents[2] / "docs" / "header-phrases.json"
DIGEST = b'"' + b"0123456789abcdef" * 4 + b'"'
pieces = st.lists(st.one_of(st.sampled_from([*PHRASES, DIGEST]), st.from_regex(rb"[ -~]{0,9}", fullmatch=True)))


@given(pieces)
def test_every_text_comes_back_and_none_gets_longer(parts: list[bytes]) -> None:
    text = b"".join(parts)
    folded = fold(text)
    assert unfold(folded, len(text)) == text
    assert len(folded) <= len(text)


def test_the_page_has_the_same_table() -> None:
    assert tuple(text.encode("ascii") for text in json.loads(PAGE.read_text())) == PHRASES


def test_a_phrase_is_one_byte_of_its_own() -> None:
    assert len(set(PHRASES)) == len(PHRASES) <= 0xFF - 0x80
    for place, phrase in enumerate(PHRASES):
        assert fold(phrase) == bytes([0x80 + place])


def test_a_header_takes_a_fifth() -> None:
    text = header().to_json()
    assert 5 * len(fold(text)) < len(text) + 5 * len(header().source_name)


@pytest.mark.parametrize("digits", [63, 65])
def test_only_whole_digests_are_folded(digits: int) -> None:
    assert fold(b'"' + b"a" * digits + b'"') == b'"' + b"a" * digits + b'"'


@pytest.mark.parametrize("stray", [bytes([0x80 + len(PHRASES)]), b"\xfe", b"\xff", b"\xff" + bytes(31)])
def test_what_stands_for_nothing_is_corrupt(stray: bytes) -> None:
    folded = fold(header().to_json()) + stray
    crc = crc32c(folded, crc32c(fmt.PROLOGUE.pack(fmt.MAGIC, 2, 0, len(folded), 0)[8:16]))
    with pytest.raises(CorruptArchive, match="header at byte 20: byte F"):
        ArchiveReader(fmt.PROLOGUE.pack(fmt.MAGIC, 2, 0, len(folded), crc) + folded)


def test_a_header_that_unfolds_without_end_is_refused_in_little_memory() -> None:
    longest = max(range(len(PHRASES)), key=lambda place: len(PHRASES[place]))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 65536"):
            unfold(bytes([0x80 + longest]) * MAX_HEADER_BYTES, MAX_HEADER_BYTES)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_HEADER_BYTES
    finally:
        tracemalloc.stop()


def test_an_archive_of_version_1_is_read() -> None:
    text = header().to_json()
    crc = crc32c(text, crc32c(fmt.PROLOGUE.pack(fmt.MAGIC, 1, 0, len(text), 0)[8:16]))
    found = ArchiveReader(fmt.PROLOGUE.pack(fmt.MAGIC, 1, 0, len(text), crc) + text, salvage=True)
    assert found.header == header()
