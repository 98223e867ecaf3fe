"""A staged GOP comes back as it went, and damage is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from s2vc_ray.config import MetricPolicy
from s2vc_ray.errors import StorageError
from s2vc_ray.staging import (
    Metric,
    StagedObject,
    pack_staged,
    staging_key,
    staging_prefix,
    unpack_staged,
)
from s2vc_ray.values import FrameDigest
from tests.fakes import staged_gop

DIGESTS = tuple(FrameDigest(4608, f"{at:032x}") for at in range(4))


def test_round_trip() -> None:
    gop = replace(staged_gop(3, pts=(0, 512, 1024)), metrics=(Metric("psnr", 30.5, 29.0, 4),))
    staged = StagedObject(gop, b"payload", DIGESTS[:3])
    assert unpack_staged(pack_staged(staged), "k") == staged


def test_a_flipped_bit_is_noticed_wherever_it_is() -> None:
    whole = pack_staged(StagedObject(staged_gop(0), b"payload", DIGESTS))
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 0x01
        with pytest.raises(StorageError, match="staged GOP k"):
            unpack_staged(bytes(data), "k")


def test_every_frame_has_its_digest() -> None:
    data = pack_staged(StagedObject(staged_gop(0), b"payload", DIGESTS[:3]))
    with pytest.raises(StorageError, match="staged GOP k"):
        unpack_staged(data, "k")


@pytest.mark.parametrize("length", [0, 5, 40])
def test_a_cut_object_is_noticed(length: int) -> None:
    with pytest.raises(StorageError):
        unpack_staged(pack_staged(StagedObject(staged_gop(0), b"payload", DIGESTS))[:length], "k")


def test_key_tells_apart_whatever_changes_payload_or_measurement() -> None:
    policy = MetricPolicy.parse("none")
    keys = {
        staging_key(staging_prefix("v", "s" * 64, "h", policy), 0),
        staging_key(staging_prefix("v", "s" * 64, "h", policy), 1),
        staging_key(staging_prefix("w", "s" * 64, "h", policy), 0),
        staging_key(staging_prefix("v", "t" * 64, "h", policy), 0),
        staging_key(staging_prefix("v", "s" * 64, "i", policy), 0),
        staging_key(staging_prefix("v", "s" * 64, "h", MetricPolicy.parse("full")), 0),
        staging_key(staging_prefix("v", "s" * 64, "h", MetricPolicy.parse("full", ("psnr",))), 0),
    }
    assert len(keys) == 7
