"""A change of picture size is found while packets are read, and the error says where it is and what to do."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from s2vc_ray import timeline
from s2vc_ray.errors import SourceError
from s2vc_ray.probe import probe
from tests.media import make_clip

SECOND = r"picture size changes to 96x48 at frame 8 \(0\.320 s\), from 64x48.*-t 0\.320 FIRST.*scale"


def joined(folder: Path, codec: str, suffix: str, *sizes: tuple[int, int]) -> Path:
    """Clips of 8 frames of these sizes in one stream, one after the other."""
    path = folder / f"joined{suffix}"
    with av.open(str(path), "w") as out:
        stream = None
        for number, size in enumerate(sizes):
            options = {} if codec == "libx265" else {"bf": "0"}
            clip = make_clip(
                folder / f"{number}{suffix}", codec=codec, frames=8, gop=4, size=size, options=options
            )
            with av.open(str(clip)) as piece:
                video = piece.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                step = round(8 / 25 / video.time_base)
                for packet in piece.demux(video):
                    if packet.size:
                        packet.stream = stream
                        packet.pts, packet.dts = packet.pts + number * step, packet.dts + number * step
                        out.mux(packet)
    return path


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("libx264", ".ts"),
        ("libx265", ".ts"),
        ("mpeg2video", ".ts"),
        ("mpeg2video", ".mkv"),
    ],
)
def test_it_is_found_without_decoding_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, suffix: str
) -> None:
    monkeypatch.setattr(timeline, "decode_packet", None)
    source = joined(tmp_path, codec, suffix, (64, 48), (96, 48), (64, 48))
    with pytest.raises(SourceError, match=SECOND):
        probe(source)


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".ts"), ("mpeg2video", ".ts"), ("libx265", ".ts")])
def test_new_parameters_of_the_same_size_are_none(tmp_path: Path, codec: str, suffix: str) -> None:
    source = joined(tmp_path, codec, suffix, (64, 48), (64, 48))
    assert probe(source).frames == 16


def flv_tags(clip: bytes, late: int) -> bytes:
    """The tags of an FLV file, so many milliseconds later."""
    at, tags = 13, b""
    while at < len(clip):
        end = at + 11 + int.from_bytes(clip[at + 1 : at + 4], "big") + 4
        time = int.from_bytes(clip[at + 4 : at + 7], "big") + late
        tags += clip[at : at + 4] + time.to_bytes(3, "big") + clip[at + 7 : end]
        at = end
    return tags


@pytest.mark.parametrize("width", [64, 96])
def test_what_the_container_says_counts(tmp_path: Path, width: int) -> None:
    """FLV brings H.264 parameters in a tag of their own, which FFmpeg puts beside the next packet."""
    first, second = (
        make_clip(tmp_path / f"{n}.flv", frames=8, gop=4, size=(size, 48), b_frames=0).read_bytes()
        for n, size in enumerate((64, width))
    )
    source = tmp_path / "joined.flv"
    source.write_bytes(first + flv_tags(second, 320))
    if width == 64:
        assert probe(source).frames == 16
    else:
        with pytest.raises(SourceError, match=SECOND):
            probe(source)
