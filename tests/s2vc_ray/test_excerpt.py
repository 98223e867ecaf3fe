"""The carried streams of a stretch: which packets, when, and what is said about it."""

from __future__ import annotations

from fractions import Fraction

from s2vc_ray.excerpt import Excerpt
from s2vc_ray.passthrough_format import Passthrough, write_passthrough
from s2vc_ray.passthrough_head import PassAttachment, PassChapter, PassHead, PassStream
from s2vc_ray.passthrough_packets import KEY, PassPacket

MS = Fraction(1, 1000)


def stream(index: int, kind: str, unit: Fraction, **tags: str) -> PassStream:
    return PassStream(index, 0, kind, "x", "", unit, b"", 0, tags, {}, b"", "")


def packet(
    number: int, pts: int | None, duration: int, data: bytes = b"x", dts: int | None = None
) -> PassPacket:
    return PassPacket(number, KEY, pts, pts if dts is None else dts, duration, (), data)


def chapter(number: int, start: int, end: int) -> PassChapter:
    return PassChapter(number, start, end, MS, {"title": str(number)})


STREAMS = (
    stream(1, "audio", Fraction(1, 48000)),
    stream(2, "subtitle", MS, language="fra"),
    stream(3, "video", MS),
    stream(4, "data", MS, timecode="10:00:00:00"),
)
PACKETS = (
    packet(2, 0, 0, b"cover"),
    packet(3, 0, 60_000, b"tmcd"),
    *(packet(0, at * 480, 480, bytes([at % 251])) for at in range(-2, 1000)),
    packet(1, 500, 2000, b"over the beginning"),
    packet(1, 900, 100, b"before"),
    packet(1, 2500, 5000, b"over the end"),
    packet(1, 3000, 100, b"behind"),
)


def source(packets: tuple[PassPacket, ...] = PACKETS) -> Passthrough:
    head = PassHead(
        format="matroska",
        metadata={"title": "A tale", "TIMECODE": "10:00:00:00"},
        video_index=0,
        video_disposition=1,
        video_metadata={},
        streams=STREAMS,
        attachments=(PassAttachment(5, {"filename": "font.ttf"}, 0, 0),),
        chapters=(
            chapter(1, 0, 1000),
            chapter(2, 1000, 1500),
            chapter(3, 1400, 9000),
            chapter(4, 3000, 4000),
        ),
        omitted=(),
    )
    return write_passthrough(head, packets, [b"a font"])


def taken(
    begin: Fraction | None, end: Fraction | None
) -> tuple[Passthrough, dict[int, list[PassPacket]], str]:
    excerpt = Excerpt(begin, end)
    passthrough = Passthrough.from_bytes(excerpt.take(source()).to_bytes())
    by_stream: dict[int, list[PassPacket]] = {number: [] for number in range(len(STREAMS))}
    for one in passthrough.packets():
        by_stream[one.stream].append(one)
    return passthrough, by_stream, "; ".join(excerpt.notes)


def test_a_stretch_in_the_middle() -> None:
    passthrough, packets, notes = taken(Fraction(1001, 1000), Fraction(3))
    sound = packets[0]
    # The first packet that begins in the stretch is the one at 1.01 s; then every 10 ms until 3 s, exclusive.
    assert [one.pts for one in sound] == [round(at * 480 - 48048) for at in range(101, 300)]
    assert all(one.dts == one.pts and one.duration == 480 for one in sound)
    assert [one.data for one in sound] == [bytes([at % 251]) for at in range(101, 300)]
    assert [(one.pts, one.duration, one.data) for one in packets[1]] == [
        (0, 1499, b"over the beginning"),
        (1499, 5000, b"over the end"),
    ]
    assert [(one.pts, one.data) for one in packets[2]] == [(0, b"cover")]
    assert packets[3] == []
    chapters = [(one.id, one.start, one.end) for one in passthrough.head.chapters]
    assert chapters == [(2, 0, 499), (3, 399, 1999)]
    assert passthrough.head.metadata == {"title": "A tale"}
    assert passthrough.head.streams[3].metadata == {}
    assert passthrough.head.streams[1].metadata == {"language": "fra"}
    assert passthrough.attachment(0) == b"a font"
    for says in ("cut between packets", "timecode is left out", "2 chapters lie outside"):
        assert says in notes


def test_from_the_beginning_nothing_moves() -> None:
    passthrough, packets, notes = taken(None, Fraction(1, 10))
    assert [one.pts for one in packets[0]] == [at * 480 for at in range(-2, 10)]
    assert [one.data for one in packets[3]] == [b"tmcd"]
    assert passthrough.head.metadata["TIMECODE"] == "10:00:00:00"
    assert [(one.id, one.start, one.end) for one in passthrough.head.chapters] == [(1, 0, 100)]
    assert "timecode" not in notes


def test_to_the_end_everything_stays() -> None:
    _, packets, _ = taken(Fraction(9), None)
    assert [one.pts for one in packets[0]] == [at * 480 for at in range(100)]


def test_packets_without_times_go_with_those_before_them() -> None:
    untimed = PassPacket(0, 0, None, None, 0, (), b"untimed")
    excerpt = Excerpt(Fraction(1), Fraction(2))
    packets = (packet(0, 0, 1), untimed, packet(0, 48000, 1), untimed, packet(0, 96000, 1), untimed)
    got = list(excerpt.take(source(packets)).packets())
    assert [(one.pts, one.data) for one in got] == [(0, b"x"), (None, b"untimed")]
