"""A clip's GOPs through the codec as a job's worker codes them, each at one level only once.

Owns cutting a clip into GOPs and remembering codings: in memory for one clip, S2VC's also on disk under everything that
decides them. What a coding is, `s2vc_ray.lanes` says: the payload's own bytes, parsed, decoded and measured. Knows no
target and no search.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from jobs.bench_clips import Clip, make_clip
from jobs.bench_quality import code_fingerprint
from jobs.bench_rows import keep, kept_at
from s2vc_model.config import QUARTERS
from s2vc_model.metrics import MetricResult, measure
from s2vc_model.picture_scale import Size
from s2vc_ray.config import JobConfig
from s2vc_ray.fallback import encode_av1
from s2vc_ray.gop_decoder import from_payload, iter_decode, reread
from s2vc_ray.lanes import CodedGop, Lanes, LoadedCodec
from s2vc_ray.staging import Metric
from s2vc_ray.target_search import Way, Wish
from s2vc_ray.usage import Meter


@dataclass(frozen=True, slots=True)
class Measured:
    """Every metric of the job, of the frames that it measures and of all frames."""

    sampled: Mapping[str, MetricResult]
    every: Mapping[str, MetricResult]


class ClipCodings:
    """The codings of one clip.

    Args:
        config: the job; its quality and target are not looked at.
        folder: of codings that other runs made; None keeps none.
    """

    def __init__(self, clip: Clip, codec: LoadedCodec, config: JobConfig, folder: Path | None) -> None:
        self.gops = [clip.frames[at : at + config.gop] for at in range(0, len(clip.frames), config.gop)]
        self._codec = codec
        self._sizes = codec.sizes(*clip.frames.shape[1:3])
        self._config = replace(config, target=None, fallback="none")
        self._store = _Store(folder, _identity(codec, config))
        self._digests = [make_clip(clip.name, gop, clip.rate).sha256 for gop in self.gops]
        self._ours: dict[tuple[bool | None, Wish], CodedGop] = {}
        self._av1: dict[Wish, CodedGop] = {}
        self._again: dict[tuple[int, str, float, bool], Measured] = {}

    def ways(self) -> list[Way]:
        """The ways of a job that holds floors."""
        return [self._way(size) for size in self._sizes]

    def way_of(self, coded: CodedGop) -> Way:
        """The one of them that a GOP was coded in."""
        return next(self._way(size) for size in self._sizes if size.larger in (None, is_larger(coded)))

    def code(self, wishes: Sequence[Wish], larger: bool | None = None) -> list[CodedGop]:
        """GOPs (their numbers in the clip) at their q, as S2VC codes them, at the size that its rules or we say."""
        new = [wish for wish in dict.fromkeys(wishes) if not self._recall(wish, larger)]
        lanes = Lanes(
            self._config,
            lanes=1,
            overlap=False,
            load_codec=lambda model, device: self._codec,
            meter=Meter(1),
        )
        coded = lanes.at([self.gops[n] for n, _ in new], [q for _, q in new], larger)
        for wish, one in zip(new, coded, strict=True):
            self._ours[larger, wish] = one
            self._store.put(self._digests[wish[0]], wish[1], larger, one)
        return [self._ours[larger, wish] for wish in wishes]

    def code_av1(self, wishes: Sequence[Wish]) -> list[CodedGop]:
        """GOPs at their CRF, as the fallback codec codes them."""
        for number, crf in wishes:
            if (number, crf) not in self._av1:
                coded = CodedGop(reread(encode_av1(self.gops[number], int(crf))), 0.0, 0.0, ())
                results = self.again(number, coded).sampled
                metrics = tuple(
                    Metric(name, one.mean, one.worst, len(one.frames)) for name, one in results.items()
                )
                self._av1[number, crf] = replace(coded, metrics=metrics)
        return [self._av1[wish] for wish in wishes]

    def known(self, number: int) -> dict[float, CodedGop]:
        """By q, what has been coded of a GOP with S2VC so far, at the size that its rules say."""
        return {q: coded for (larger, (one, q)), coded in self._ours.items() if one == number and larger is None}

    def all_known(self, number: int) -> list[CodedGop]:
        """All that has been coded of a GOP with S2VC so far."""
        return [coded for (_, (one, _)), coded in self._ours.items() if one == number]

    def again(self, number: int, coded: CodedGop) -> Measured:
        """Decode a payload's bytes once more and measure them, once for each payload."""
        key = (number, coded.codec, level_of(coded), is_larger(coded))
        if key not in self._again:
            shown = iter_decode(self._codec, [from_payload(coded.codec, coded.payload)])
            decoded = np.stack([picture for pictures in shown for picture in pictures.values()])
            device, policy = str(self._codec.device), self._config.metrics
            sampled, every = (
                measure(self.gops[number], decoded, policy.names, sample, device)
                for sample in (policy.sample, None)
            )
            self._again[key] = Measured(sampled, every)
        return self._again[key]

    def _way(self, size: Size) -> Way:
        return Way(partial(self.code, larger=size.larger), size.lowest)

    def _recall(self, wish: Wish, larger: bool | None) -> bool:
        if (larger, wish) not in self._ours and (
            kept := self._store.get(self._digests[wish[0]], wish[1], larger)
        ):
            self._ours[larger, wish] = kept
        return (larger, wish) in self._ours


def level_of(coded: CodedGop) -> float:
    """The q, quarters and all, or the CRF that a GOP is coded at."""
    level: float = coded.encoded.q + coded.encoded.fine / QUARTERS
    return level


def is_larger(coded: CodedGop) -> bool:
    """Whether a GOP's pictures are enlarged."""
    return coded.encoded.scale != 0


@dataclass(frozen=True, slots=True)
class _Store:
    """Codings on disk, a file each, by the digest of the GOP's pictures and what else decides them."""

    folder: Path | None
    identity: dict[str, object]

    def get(self, gop: str, q: float, larger: bool | None) -> CodedGop | None:
        path = kept_at(self.folder, {**self.identity, "gop": gop, "q": q, "larger": larger})
        if path is None or not path.is_file():
            return None
        kept = json.loads(path.read_bytes())
        encoded = from_payload(kept["codec"], base64.b64decode(kept["payload"]))
        metrics = tuple(Metric(**metric) for metric in kept["metrics"])
        return CodedGop(encoded, kept["encode_seconds"], kept["decode_seconds"], metrics)

    def put(self, gop: str, q: float, larger: bool | None, coded: CodedGop) -> None:
        path = kept_at(self.folder, {**self.identity, "gop": gop, "q": q, "larger": larger})
        if path is not None:
            row = {
                "codec": coded.codec,
                "payload": base64.b64encode(coded.payload).decode(),
                "metrics": [asdict(metric) for metric in coded.metrics],
                "encode_seconds": coded.encode_seconds,
                "decode_seconds": coded.decode_seconds,
            }
            keep(path, json.dumps(row))


def _identity(codec: LoadedCodec, config: JobConfig) -> dict[str, object]:
    return {
        "scene_cuts": config.scene_cuts,
        "metrics": [str(config.metrics), *config.metrics.names],
        "weights": codec.weights_sha256,
        "preset": codec.preset,
        "device": str(codec.device),
        "torch": torch.__version__,
        "code": code_fingerprint(),
    }
