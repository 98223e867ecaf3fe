"""The deeper looks at an archive: do its GOPs decode to the symbols, and to the pictures, that were coded?

Both take GOPs one at a time from whoever reads the archive, and work on as many together as the codec likes. Reach
torch only through the codec and the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from s2vc_model.errors import ModelError
from s2vc_ray.archive import ArchiveHeader, GopRecord
from s2vc_ray.config import MetricPolicy
from s2vc_ray.errors import ArchiveError, SourceError
from s2vc_ray.frames import decode_gop
from s2vc_ray.gop_decoder import AnyGop, check_symbols, coded_gop, iter_decode
from s2vc_ray.lanes import LoadedCodec
from s2vc_ray.lockstep import Lockstep
from s2vc_ray.standby import Standbys
from s2vc_ray.values import FrameDigest, GopSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TOLERANCES = {"psnr": 0.3, "ms_ssim": 0.005, "lpips_alex": 0.02}
"""How far a figure may be from the manifest's. On the device that coded the GOP figures come out the same; decoders on
other devices stay above 45 dB of each other."""

Row = Mapping[str, Any]
_Waiting = tuple[GopRecord, AnyGop]
_Out = TypeVar("_Out")


class SymbolCheck:
    """Entropy-decodes every GOP of one archive, as many together as the codec likes, and checks every symbol checksum.

    ``faults`` says which GOPs do not decode to what was coded; it is complete after `finish`.
    """

    def __init__(self, header: ArchiveHeader, codec: LoadedCodec) -> None:
        self.faults: list[str] = []
        self.gops = self.frames = 0
        self._header = header
        self._codec = codec
        self._lockstep = Lockstep()
        self._waiting: list[_Waiting] = []

    def add(self, record: GopRecord) -> None:
        """Look at one more GOP, now or together with later ones."""
        try:
            self._waiting.append((record, coded_gop(record, self._header)))
        except (ArchiveError, ModelError) as error:
            self.faults.append(_about(record, error))
            return
        if len(self._waiting) >= self._codec.parallel:
            self.finish()

    def finish(self) -> None:
        """Look at what is left."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        try:
            self._look(batch)
        except ModelError:
            # Side by side, one GOP's failure is every GOP's: each alone tells whose it is.
            for one in batch:
                try:
                    self._look([one])
                except ModelError as error:
                    self.faults.append(_about(one[0], error))
        self.gops += len(batch)
        self.frames += sum(record.frames for record, _ in batch)

    def _look(self, batch: Sequence[_Waiting]) -> None:
        self._in_memory("symbols", batch, self._check)

    def _check(self, batch: Sequence[_Waiting]) -> list[None]:
        check_symbols(self._codec, [gop for _, gop in batch])
        return [None] * len(batch)

    def _in_memory(
        self, stage: str, batch: Sequence[_Waiting], work: Callable[[Sequence[_Waiting]], list[_Out]]
    ) -> list[_Out]:
        """``work`` of a batch, in as many parts as memory needs."""
        return self._lockstep.run((stage, self._header.height, self._header.width), batch, work)


@dataclass(frozen=True, slots=True)
class Reference:
    """What an archive's pictures can be compared with: the source, its GOPs, and what the manifest says of them.

    ``listed`` are the frame digests of the source by GOP; empty where there is no frame list.
    """

    uri: str
    specs: Mapping[int, GopSpec]
    rows: Mapping[int, Row]
    listed: Mapping[int, tuple[FrameDigest, ...]]


class PixelCheck(SymbolCheck):
    """Decodes every GOP and, where there is a ``reference``, measures the frames that were measured before.

    ``measured`` counts the GOPs whose figures were compared; ``differences`` says what is other than it was.
    """

    def __init__(self, header: ArchiveHeader, codec: LoadedCodec, reference: Reference | None) -> None:
        super().__init__(header, codec)
        self.measured = 0
        self.differences: list[str] = []
        self._reference = reference
        self._sources = Standbys()

    def _look(self, batch: Sequence[_Waiting]) -> None:
        decoded = self._in_memory("decode", batch, self._decode)
        if self._reference is not None:
            for (record, _), frames in zip(batch, decoded, strict=True):
                self.differences.extend(self._compared(self._reference, record, frames))

    def _decode(self, batch: Sequence[_Waiting]) -> list[list[npt.NDArray[np.uint8]]]:
        """Decode all frames, which checks every symbol, and keep those to measure."""
        chosen = [self._chosen(record) for record, _ in batch]
        kept: list[list[npt.NDArray[np.uint8]]] = [[] for _ in batch]
        for at, pictures in enumerate(iter_decode(self._codec, [gop for _, gop in batch])):
            for number, picture in pictures.items():
                if at in chosen[number]:
                    kept[number].append(picture)
        return kept

    def _chosen(self, record: GopRecord) -> list[int]:
        """Which frames of a GOP were measured when it was coded."""
        row = self._reference.rows.get(record.index) if self._reference else None
        if row is None or not _names(row):
            return []
        from s2vc_model.metrics import sample_indices

        return list(sample_indices(record.frames, MetricPolicy.parse(row["metric_policy"]).sample))

    def _compared(
        self,
        reference: Reference,
        record: GopRecord,
        frames: list[npt.NDArray[np.uint8]],
    ) -> Iterator[str]:
        """What is other than it was, of one GOP."""
        where = f"GOP {record.index}"
        row, spec = reference.rows.get(record.index), reference.specs.get(record.index)
        if row is None or spec is None:
            yield f"{where}: not in the manifest, or not in the source"
            return
        try:
            with self._sources.of(reference.uri, self._header.source_sha256, spec.pts[0]) as held:
                source = decode_gop(held, spec, deinterlace=self._header.deinterlace)
        except SourceError as error:
            yield f"{where}: {error}"
            return
        if source.pts != record.pts:
            yield f"{where}: the source has frames at other times than the archive"
            return
        pairs = zip_longest(source.digests, reference.listed.get(record.index, source.digests))
        odd = [at for at, (now, then) in enumerate(pairs) if now != then]
        if odd:
            yield f"{where}: frame {odd[0]} of the source decodes to other pixels than when it was compressed"
        if frames:
            yield from self._figures(row, where, source.frames[self._chosen(record)], frames)
            self.measured += 1

    def _figures(
        self, row: Row, where: str, source: npt.NDArray[np.uint8], frames: list[npt.NDArray[np.uint8]]
    ) -> Iterator[str]:
        import numpy as np

        from s2vc_model.metrics import measure

        if row["metric_frames"] != len(frames):
            yield f"{where}: the manifest measured {row['metric_frames']} frames, not {len(frames)}"
        results = measure(source, np.stack(frames), _names(row), device=str(self._codec.device))
        for name, result in results.items():
            for kind, now in (("mean", result.mean), ("worst", result.worst)):
                before = row[f"{name}_{kind}"]
                if not abs(now - before) <= TOLERANCES[name]:
                    yield f"{where}: {name} ({kind}) is {now:.4f}, the manifest says {before:.4f}"


def _names(row: Row) -> list[str]:
    """The metrics that a row has figures of and that are compared."""
    return [name for name in TOLERANCES if row[f"{name}_mean"] is not None]


def _about(record: GopRecord, error: Exception) -> str:
    text = str(error)
    return text if text.startswith("GOP ") else f"GOP {record.index}: {text}"
