"""One archive against the manifest's word on it, as deep as is asked for: a verdict, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import BinaryIO

from s2vc_ray.archive import ArchiveHeader
from s2vc_ray.errors import ConfigError, ObjectMissing, SourceError, StorageError, WrongWeights
from s2vc_ray.fixity import fixity
from s2vc_ray.gop_decoder import check_weights, told_of_weights
from s2vc_ray.lanes import LoadedCodec
from s2vc_ray.provenance import DECODING, FIXITY, MEASUREMENT
from s2vc_ray.storage import Storage
from s2vc_ray.verify_decode import PixelCheck, Row, SymbolCheck
from s2vc_ray.verify_reference import PLACES, Word, find_reference, rows_of
from s2vc_ray.verify_report import DEPTHS, Check, Verdict
from s2vc_ray.verify_structure import Structure, examine, glance, some_of

Opener = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What is asked for.

    Attributes:
        depth: one of `DEPTHS`; each does what those before it do.
        source: folder, prefix or file where sources lie; None is where the manifest says.
        sample: share of the videos, chosen by their ids: the same ones every time.
        model, device: what decodes; see `s2vc_ray.config.JobConfig`.
        events: append what was done to the destination's events.
        limit: most problems named; 0 names all.
    """

    depth: str = "bytes"
    source: str | None = None
    sample: float = 1.0
    model: str = "small"
    device: str = "auto"
    events: bool = True
    limit: int = 1000

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise ConfigError(f"depth is {self.depth!r}: choose one of {', '.join(DEPTHS)}")
        if self.source and self.depth != "pixels":
            raise ConfigError("--source is what pictures are compared with: add --depth pixels")
        if not 0 < self.sample <= 1:
            raise ConfigError(f"sample is {100 * self.sample:g}%: give more than 0% and at most 100%")

    @property
    def reads(self) -> bool:
        """Whether GOPs are read."""
        return self.depth != "structure"

    @property
    def decodes(self) -> bool:
        """Whether they are decoded, too."""
        return self.depth in ("symbols", "pixels")


class ArchiveVerifier:
    """Verifies archives one at a time. Safe to call from several threads as far as the codec is.

    Args:
        storage: where the manifest is; None for archives by themselves.
        codec: what decodes; None where nothing is decoded.
    """

    def __init__(self, options: VerifyOptions, storage: Storage | None, codec: LoadedCodec | None) -> None:
        self._options = options
        self._storage = storage
        self._codec = codec

    def verify(self, open_archive: Opener, word: Word) -> Verdict:
        """The verdict on the archive that ``word`` is about."""
        try:
            return self._look(open_archive, word)
        except ObjectMissing as error:
            return Verdict(word.key, "missing", (str(error),), checks=_failed(FIXITY, str(error)))
        except (StorageError, OSError) as error:
            return Verdict(word.key, "unreadable", (str(error),), checks=_failed(FIXITY, str(error)))

    def _look(self, open_archive: Opener, word: Word) -> Verdict:
        alone = self._storage is None
        if not self._options.reads:
            with open_archive() as stream:
                structure = glance(stream)
            differences = _differences(structure, rows_of(self._storage, word, PLACES))
            return self._with_frame_list(_structural(structure, word, differences, alone=alone), word)
        deeper, why_not = None, ""
        with open_archive() as stream:
            header = glance(stream).header
            if self._codec is not None and header is not None:
                deeper, why_not = self._deeper(header, word, self._codec)
            stream.seek(0)
            structure = examine(stream, deeper.add if deeper else None)
        verdict = self._with_frame_list(_structural(structure, word, [], alone=alone), word)
        if deeper is not None:
            deeper.finish()
            return _with_decoding(verdict, deeper, why_not)
        if why_not and verdict.outcome == "ok":
            return _worse(verdict, "other model", [why_not], _failed(DECODING, why_not))
        return verdict

    def _deeper(
        self, header: ArchiveHeader, word: Word, codec: LoadedCodec
    ) -> tuple[SymbolCheck | None, str]:
        """How the archive's GOPs are looked at, and why not, or why their pictures are not measured."""
        try:
            check_weights(header, codec, word.key)
        except WrongWeights as error:
            return None, str(error)
        if self._options.depth == "symbols":
            return SymbolCheck(header, codec), ""
        if told := told_of_weights(header, codec):
            return PixelCheck(header, codec, None), f"{told[0]}: give those weights with --model"
        try:
            reference = find_reference(header, word, self._storage, self._options.source)
        except (SourceError, ObjectMissing) as error:
            return PixelCheck(header, codec, None), str(error)
        return PixelCheck(header, codec, reference), ""

    def _with_frame_list(self, verdict: Verdict, word: Word) -> Verdict:
        """The verdict on archive and frame list together."""
        if verdict.outcome != "ok" or self._storage is None or word.frames_sha256 is None:
            return verdict
        key = word.frame_list_key
        if self._storage.stat(key) is None:
            said = f"{key} is missing"
        elif not self._options.reads:
            return verdict
        else:
            with self._storage.open(key) as stream:
                sha256 = fixity(stream).sha256
            if sha256 == word.frames_sha256:
                return verdict
            said = f"{key}: its SHA-256 is {sha256}, the manifest says {word.frames_sha256}"
        return _worse(verdict, "frame list", [said], _failed(FIXITY, said))


def _structural(found: Structure, word: Word, differences: list[str], *, alone: bool) -> Verdict:
    """What an archive's bytes and the manifest say together."""
    faults = [*found.faults, *differences]
    outcome = "damaged" if found.faults else "exchanged" if differences else "ok"
    shorter = word.size is not None and found.size < word.size
    if (found.cut and word.size is None) or (found.faults and shorter):
        outcome = "truncated"
        if word.size is not None:
            faults.insert(0, f"{found.size} of {word.size} bytes are there")
    elif not alone and word.video is None and not faults:
        outcome = "unknown"
        faults.append("no row of the manifest describes it")
    elif word.size is not None and found.size != word.size:
        outcome = "damaged" if found.faults else "exchanged"
        faults.insert(0, f"it has {found.size} bytes, the manifest says {word.size}")
    elif word.sha256 and found.sha256 not in (None, word.sha256) and not faults:
        outcome = "exchanged"
        faults.append(f"its SHA-256 is {found.sha256}, the manifest says {word.sha256}")
    looked = "header, index and size" if found.sha256 is None else "every CRC, and the SHA-256"
    passed = outcome in ("ok", "unknown")
    check = Check(FIXITY, "success" if passed else "failure", "; ".join(faults) or looked)
    read = found.size if found.sha256 else 0
    return Verdict(word.key, outcome, tuple(faults), found.sha256, read, checks=(check,))


def _differences(found: Structure, rows: Mapping[int, Row]) -> list[str]:
    """Where the index is not what the manifest's rows say."""
    if found.index is None or not rows:
        return []
    held = {one.index: (one.payload_offset, one.payload_bytes, one.frames) for one in found.index.gops}
    said = {index: tuple(row[name] for name in PLACES) for index, row in rows.items()}
    return list(
        some_of(
            [
                f"GOP {index}: place, size or number of frames are not the manifest's"
                for index in sorted(held.keys() | said.keys())
                if held.get(index) != said.get(index)
            ]
        )
    )


def _with_decoding(verdict: Verdict, deeper: SymbolCheck, why_not: str) -> Verdict:
    """The verdict, with what decoding and measuring have shown."""
    verdict = replace(verdict, gops=deeper.gops, frames=deeper.frames)
    if deeper.faults:
        return _worse(verdict, "symbols", deeper.faults, _failed(DECODING, "; ".join(some_of(deeper.faults))))
    decoded = Check(DECODING, "success", f"{deeper.gops} GOPs, {deeper.frames} frames")
    verdict = replace(verdict, checks=(*verdict.checks, decoded))
    if not isinstance(deeper, PixelCheck):
        return verdict
    if why_not:
        return _worse(verdict, "not measured", [why_not], (Check(MEASUREMENT, "not measured", why_not),))
    if deeper.differences:
        said = "; ".join(some_of(deeper.differences))
        return _worse(verdict, "measurement", deeper.differences, _failed(MEASUREMENT, said))
    measured = Check(MEASUREMENT, "success", f"{deeper.measured} GOPs as the manifest says")
    return replace(verdict, checks=(*verdict.checks, measured))


def _worse(verdict: Verdict, outcome: str, faults: list[str], checks: tuple[Check, ...]) -> Verdict:
    """The verdict with something more; what was wrong before stays its outcome."""
    return replace(
        verdict,
        outcome=outcome if verdict.outcome == "ok" else verdict.outcome,
        faults=(*verdict.faults, *some_of(faults)),
        checks=(*verdict.checks, *checks),
    )


def _failed(kind: str, detail: str) -> tuple[Check, ...]:
    return (Check(kind, "failure", detail),)
