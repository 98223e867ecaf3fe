"""What an archive carries besides its pictures, as files: attached files as they were, streams packet by packet.

A stream becomes its packets' bytes back to back, a JSON list of the packets, and, where Matroska or NUT can hold it, a
file to play. So a stream that no container takes is not lost in an archive either. Needs no model. Names in archives
are never paths: what is left of them stays within the folder, and nothing there is overwritten.
"""

from __future__ import annotations

import json
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import av
from av.container import OutputContainer
from av.stream import Stream

from s2vc_ray.archive import ArchiveReader
from s2vc_ray.errors import ConfigError, ObjectExists
from s2vc_ray.passthrough_format import Passthrough
from s2vc_ray.passthrough_head import PassAttachment, PassHead, PassStream
from s2vc_ray.passthrough_packets import CORRUPT, DISCARD, DISPOSABLE, KEY, PassPacket
from s2vc_ray.portable_tags import printable
from s2vc_ray.remux import PICTURE_FILES
from s2vc_ray.source_io import TAG_ERRORS
from s2vc_ray.storage import TEMPORARY_SUFFIX, Storage, open_source, open_storage
from s2vc_ray.storage_local import local_errors
from s2vc_ray.tracks import REFUSALS, add_track, first_packets, restore_packet, why_refused

_AT_ONCE = 16
"""Streams written in one reading of the packets, each to up to three files."""

_PLAYABLE = {"audio": ("matroska", ".mka"), "subtitle": ("matroska", ".mks"), "data": ("nut", ".nut")}
"""By kind, the container and suffix of a file to play; cover art is a file as it is."""

_FLAGS = {KEY: "key", DISCARD: "discard", CORRUPT: "corrupt", DISPOSABLE: "disposable"}
_NAME_BYTES = 120
_SUFFIX_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Extracted:
    """One file that was written: its name, the stream or attachment of the source it is from, and what it holds."""

    name: str
    index: int
    what: str


@dataclass(frozen=True, slots=True)
class ExtractReport:
    """What was written, and what there is to say about it, one sentence each."""

    files: tuple[Extracted, ...]
    notes: tuple[str, ...]


def extract_archive(
    archive: str,
    folder: str,
    *,
    streams: Sequence[int] = (),
    attachments: bool = False,
    salvage: bool = False,
) -> ExtractReport:
    """Write streams and attached files of ``archive`` (a path or ``s3://`` object) into ``folder``.

    Args:
        folder: where to; made when it is not there. May be ``s3://bucket/prefix``.
        streams: numbers that streams or attachments had in the source.
        attachments: all attached files. When neither is given, everything is written.
        salvage: take what is whole of a damaged archive.

    Raises:
        ConfigError: a stream is not in the archive.
        ObjectExists: a file that would be written is there; none was written.
        ArchiveError: not an archive, or damaged.
        StorageError: the folder cannot be written.
    """
    with open_source(archive) as file:
        reader = ArchiveReader(file, salvage=salvage)
        if not reader.index.passthrough_bytes:
            if streams:
                raise ConfigError(f"{archive}: carries no stream besides its pictures")
            return ExtractReport((), (*reader.damage, "it carries nothing besides its pictures"))
        carried = Passthrough.read(reader.open_passthrough(), salvage=salvage)
        head, storage = carried.head, open_storage(folder)
        picked, attached = _pick(head, streams, attachments, archive)
        for name in (
            *(attachment_name(head.attachments[n]) for n in attached),
            *(name for n in picked for name in _names_of(head.streams[n])),
        ):
            if storage.stat(name) is not None:
                raise _exists(f"{folder}/{name}")
        files, notes = list[Extracted](), list[str]()
        for number in attached:
            name = attachment_name(head.attachments[number])
            if not storage.put(name, carried.attachment(number)):
                raise _exists(f"{folder}/{name}")
            files.append(Extracted(name, head.attachments[number].index, "attached file"))
        for at in range(0, len(picked), _AT_ONCE):
            files += _write_streams(carried, picked[at : at + _AT_ONCE], storage, notes)
        damage = (*reader.damage, *filter(None, [carried.damage]))
        return ExtractReport(tuple(files), (*damage, *notes))


def attachment_name(attachment: PassAttachment) -> str:
    """The name of the file that an attachment becomes."""
    return safe_name(f"{attachment.index}-{attachment.name or 'attachment'}")


def safe_name(name: str) -> str:
    """``name`` as one part of a path anywhere: what is left of it is printable and neither long nor hidden."""
    kept = "".join(one if one.isprintable() and one not in '<>:"/\\|?*' else "_" for one in name)
    stem, dot, suffix = kept.strip(". ").rpartition(".")
    stem, suffix = (
        (stem, dot + suffix) if stem and len(suffix) <= _SUFFIX_LENGTH else (stem + dot + suffix, "")
    )
    most = _NAME_BYTES - len(suffix.encode())
    made = stem.encode()[:most].decode(errors="ignore") + suffix
    return made + "_" if made.endswith(TEMPORARY_SUFFIX) else made


def _pick(
    head: PassHead, wanted: Sequence[int], attachments: bool, archive: str
) -> tuple[list[int], list[int]]:
    """Which of the head's streams and attachments are wanted."""
    listed: tuple[PassStream | PassAttachment, ...] = (*head.streams, *head.attachments)
    there = {one.index for one in listed}
    if missing := sorted(set(wanted) - there):
        reasons = {one.index: one.reason for one in head.omitted}
        said = ", ".join(f"{one} ({printable(reasons.get(one, 'there is none'))})" for one in missing)
        held = ", ".join(f"{one.index} ({_kind(one)})" for one in sorted(listed, key=lambda one: one.index))
        raise ConfigError(f"{archive}: does not carry stream {said}; it carries {held or 'none'}")
    every = not wanted and not attachments
    return (
        [n for n, one in enumerate(head.streams) if every or one.index in wanted],
        [n for n, one in enumerate(head.attachments) if every or attachments or one.index in wanted],
    )


def _kind(one: PassStream | PassAttachment) -> str:
    what = f"{one.kind} {one.codec}" if isinstance(one, PassStream) else f"attached file {one.name}"
    return printable(what.strip())


def _stem(stream: PassStream) -> str:
    return safe_name(f"{stream.index}-{stream.kind}-{stream.codec or 'unknown'}".replace(".", "_"))


def _data_name(stream: PassStream) -> str:
    picture = PICTURE_FILES.get(stream.codec) if stream.kind == "video" else None
    return _stem(stream) + (Path(picture[0]).suffix if picture else ".bin")


def _names_of(stream: PassStream) -> list[str]:
    """The names of all files that a stream may become."""
    playable = [_stem(stream) + _PLAYABLE[stream.kind][1]] if stream.kind in _PLAYABLE else []
    return [_data_name(stream), f"{_stem(stream)}.json", *playable]


def _write_streams(
    carried: Passthrough, numbers: Sequence[int], storage: Storage, notes: list[str]
) -> Iterator[Extracted]:
    """Read the packets once for all of these streams, whose files appear when all of them are whole."""
    firsts = first_packets(carried)
    with tempfile.TemporaryDirectory(prefix="s2vc-") as scratch:
        with local_errors(f"write into {scratch}"), ExitStack() as opened:
            writers = {
                n: _StreamFiles(Path(scratch, str(n)), carried.head.streams[n], firsts.get(n), opened)
                for n in numbers
            }
            for packet in carried.packets():
                if packet.stream in writers:
                    writers[packet.stream].add(packet)
            for writer in writers.values():
                writer.close()
        for writer in writers.values():
            yield from writer.publish(storage)
            notes += writer.notes


class _StreamFiles:
    """The files of one stream in the making, in a new folder of their own.

    Attributes:
        notes: what could not be written, one sentence each.
    """

    def __init__(self, folder: Path, stream: PassStream, first: PassPacket | None, opened: ExitStack) -> None:
        folder.mkdir()
        self.notes: list[str] = []
        self._folder, self._stream = folder, stream
        self._data = opened.enter_context((folder / "data").open("wb"))
        self._list: TextIO = opened.enter_context((folder / "list").open("w", encoding="ascii"))
        self._list.write(json.dumps(_described(stream))[:-1] + ', "packets": [')
        self._count = self._refused = 0
        self._track: Stream | None = None
        self._player: OutputContainer | None = None
        if stream.kind in _PLAYABLE:
            container = _PLAYABLE[stream.kind][0]
            if reason := why_refused(container, stream, first):
                self.notes.append(f"{stream.kind} {stream.index} has no file to play: {printable(reason)}")
            else:
                path = str(folder / "player")
                self._player = av.open(path, "w", format=container, metadata_errors=TAG_ERRORS)
                opened.enter_context(self._player)
                self._track = add_track(self._player, stream)
                self._player.start_encoding()

    def add(self, packet: PassPacket) -> None:
        """Write one packet."""
        self._list.write(("," if self._count else "") + "\n" + json.dumps(_told(packet, self._data.tell())))
        self._data.write(packet.data)
        self._count += 1
        if self._player is not None and self._track is not None:
            try:
                self._player.mux(restore_packet(packet, self._track, self._stream.time_base))
            except (*REFUSALS, OverflowError):
                self._refused += 1

    def close(self) -> None:
        """All packets have come."""
        self._list.write("\n]}\n")
        if self._player is not None:
            try:
                self._player.close()
            except REFUSALS:
                self._player, self._refused = None, self._count
        if self._refused:
            self.notes.append(
                f"{self._stream.kind} {self._stream.index}: what there is to play lacks {self._refused} of "
                f"{self._count} packets, which its container refuses"
            )

    def publish(self, storage: Storage) -> Iterator[Extracted]:
        """Put the files where they belong, once they are closed."""
        stream, stem = self._stream, _stem(self._stream)
        what = f"{stream.kind}, {printable(stream.codec) or 'unknown codec'}"
        made = [
            ("data", _data_name(stream), f"{what}: {self._count} packets"),
            ("list", f"{stem}.json", f"{what}: where each packet is, and its times"),
        ]
        if self._player is not None:
            made.append(("player", stem + _PLAYABLE[stream.kind][1], f"{what}: to play"))
        for part, name, text in made:
            if not storage.put_file(name, self._folder / part):
                raise _exists(name)
            yield Extracted(name, stream.index, text)


def _exists(name: str) -> ObjectExists:
    return ObjectExists(f"{name} exists already: extract into another folder, or move it away")


def _described(stream: PassStream) -> dict[str, object]:
    return {
        "stream": stream.index,
        "id": stream.id,
        "kind": stream.kind,
        "codec": stream.codec,
        "tag": stream.tag,
        "time_base": [stream.time_base.numerator, stream.time_base.denominator],
        "disposition": stream.disposition,
        "metadata": stream.metadata,
        "parameters": stream.parameters,
        "extradata": b64encode(stream.extradata).decode(),
        "data": _data_name(stream),
    }


def _told(packet: PassPacket, offset: int) -> dict[str, object]:
    told: dict[str, object] = {
        "pts": packet.pts,
        "dts": packet.dts,
        "duration": packet.duration,
        "offset": offset,
        "size": len(packet.data),
        "flags": [name for bit, name in _FLAGS.items() if packet.flags & bit],
    }
    if packet.side:
        told["side_data"] = [{"type": name, "data": b64encode(data).decode()} for name, data in packet.side]
    return told
