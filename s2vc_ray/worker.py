"""One encoder: a batch of GOP references in, staged payloads and their measurements out.

    check what is staged ─ read source ─┤ lane: encode ├─┤ verify, measure ├─ stage

Decodes the source's frames, codes them in lockstep, decodes its own *payload* again to measure it, and
stages both as one object per GOP. Several threads give it batches; a lane limits how many are in the codec at
once, so that others are read and staged meanwhile. Knows nothing of Ray, torch or archives.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from s2vc_ray.block_cache import BlockCache
from s2vc_ray.config import JobConfig
from s2vc_ray.device_faults import DeviceLost, is_device_lost
from s2vc_ray.errors import ObjectMissing, StoreUnavailable
from s2vc_ray.executor import BatchResult, CodecIdentity, GopBatch, GopFailure, GopOutcome, GopTask
from s2vc_ray.frames import DecodedGop, decode_gop
from s2vc_ray.lanes import CodecLoader, CodedGop, Lanes, LoadedCodec, load_s2vc
from s2vc_ray.policy import Policy
from s2vc_ray.sources import check_unchanged
from s2vc_ray.staging import StagedGop, StagedObject, pack_staged, unpack_staged
from s2vc_ray.standby import Standbys
from s2vc_ray.storage import open_storage
from s2vc_ray.targets import Goal
from s2vc_ray.times import Times
from s2vc_ray.usage import Meter, Usage
from s2vc_ray.values import FrameDigest

__all__ = ["CodecLoader", "LoadedCodec", "Worker", "load_s2vc"]


@dataclass(frozen=True, slots=True)
class _Source:
    """What is to be said of a GOP's frames, and how long it took to get them."""

    pts: tuple[int, ...]
    digests: tuple[FrameDigest, ...]
    corrupt: int
    interlaced: int
    strayed: bool
    seconds: float


class Worker:
    """Codes batches for one job. Safe to call from several threads: some decode their sources while others code.

    Args:
        destination: where staged GOPs go; see `s2vc_ray.storage.open_storage`.
        config: the job.
        threads: CPU threads for decoding a source; with ``overlap`` also GOPs in the fallback codec at once.
        lanes: batches that may be in the codec at once.
        overlap: measure a batch, and code what falls back, outside its lane, beside the next one's coding: for GPUs,
            which gain by it. On a CPU it would only take the cores from the coding.
        load_codec: where the codec comes from.
    """

    def __init__(
        self,
        destination: str,
        config: JobConfig,
        *,
        threads: int = 1,
        lanes: int = 1,
        overlap: bool = False,
        load_codec: CodecLoader = load_s2vc,
    ) -> None:
        self._storage = open_storage(destination)
        self._sources = Standbys(BlockCache())
        self._config = config
        self._threads = threads
        self._meter = Meter(lanes)
        self._lanes = Lanes(config, lanes, overlap, load_codec, self._meter, threads)

    def identity(self) -> CodecIdentity:
        """Load the codec if need be and say which it is.

        Raises:
            ConfigError: the model, the device or the metrics' weights are not to be had.
        """
        return self._lanes.identity()

    def usage(self) -> Usage:
        """How its time was spent so far."""
        return self._meter.usage()

    def encode(self, batch: GopBatch) -> BatchResult:
        """Code and stage ``batch``; whatever goes wrong with a GOP is its `GopFailure`.

        GOPs that are staged already are returned as they lie there.

        Raises:
            DeviceLost: this process can code no more; the GOPs may be innocent.
            StoreUnavailable: a store is out of reach; the GOPs are innocent.
        """
        outcomes: dict[GopTask, GopOutcome] = {}
        sources: dict[GopTask, _Source] = {}
        frames: list[npt.NDArray[np.uint8]] = []
        for task in batch.tasks:
            # Any other exception is about this GOP, and must reach the manifest as its error instead of ending
            # the job.
            try:
                staged = self._already_staged(task)
                if staged is not None:
                    outcomes[task] = staged
                else:
                    gop, seconds = self._decode_source(task)
                    sources[task] = _Source(
                        gop.pts, gop.digests, gop.corrupt, gop.interlaced, gop.strayed, seconds
                    )
                    frames.append(gop.frames)
                    # The codec frees them when they are coded, unless something else holds them.
                    del gop
            except Exception as error:
                outcomes[task] = _failure(task, error, batch.attempt)
        try:
            coded = self._lanes.code(frames, *_goals(self._config, sources))
        except Exception as error:
            # Side by side, one GOP's failure is every GOP's; each is tried again alone.
            outcomes.update({task: _failure(task, error, batch.attempt) for task in sources})
        else:
            for (task, source), result in zip(sources.items(), coded, strict=True):
                try:
                    outcomes[task] = self._stage(task, batch.attempt, source, result)
                except Exception as error:
                    outcomes[task] = _failure(task, error, batch.attempt)
        return BatchResult(batch, tuple(outcomes[task] for task in batch.tasks))

    def _already_staged(self, task: GopTask) -> StagedGop | None:
        with self._meter.doing("stage"):
            try:
                return unpack_staged(self._storage.read(task.key), task.key).gop
            except ObjectMissing:
                return None

    def _decode_source(self, task: GopTask) -> tuple[DecodedGop, float]:
        begun, spec = time.perf_counter(), task.spec
        with (
            self._meter.doing("source"),
            self._sources.of(spec.source_uri, task.version, spec.pts[0]) as source,
        ):
            gop = decode_gop(source, spec, threads=self._threads, deinterlace=self._config.deinterlace)
            # The staging key names the bytes that were planned: others under it would be taken for them later.
            if task.version:
                check_unchanged(spec.source_uri, *task.version)
        return gop, time.perf_counter() - begun

    def _stage(self, task: GopTask, attempt: int, source: _Source, coded: CodedGop) -> StagedGop:
        spec = task.spec
        identity = self.identity()
        measured = self._config.metrics.enabled
        config = self._config.of(task.name)
        policy = config.policy
        staged = StagedGop(
            video_id=spec.video_id,
            index=spec.index,
            key=task.key,
            pts=Times(source.pts),
            frames_expected=spec.frames,
            frames_corrupt=source.corrupt,
            frames_interlaced=source.interlaced,
            strayed=source.strayed,
            width=coded.encoded.width,
            height=coded.encoded.height,
            q=coded.encoded.q,
            q_fine=coded.encoded.fine,
            scale=coded.encoded.scale,
            payload_bytes=len(coded.payload),
            payload_sha256=hashlib.sha256(coded.payload).hexdigest(),
            bits_i=coded.encoded.bits_i,
            bits_p=coded.encoded.bits_p,
            metrics=coded.metrics,
            risk=coded.risk,
            metric_policy=str(self._config.metrics),
            verified="decoded" if measured else "no",
            model_id=identity.model_id,
            weights_sha256=identity.weights_sha256,
            device=identity.device,
            torch=identity.torch,
            codec=coded.codec,
            source_seconds=source.seconds,
            encode_seconds=coded.encode_seconds,
            decode_seconds=coded.decode_seconds,
            attempts=attempt,
            target=config.target_text,
            target_value=coded.target_value,
            target_met=coded.target_met,
            probes=coded.probes,
            policy_sha256=policy.sha256 if policy else None,
            policy_rule=coded.rule,
        )
        with self._meter.doing("stage"):
            if self._storage.put(
                staged.key, pack_staged(StagedObject(staged, coded.payload, source.digests))
            ):
                return staged
            # A second driver, or an earlier life of this worker, was first: its bytes are the ones to archive.
            return unpack_staged(self._storage.read(staged.key), staged.key).gop


def _goals(config: JobConfig, tasks: Iterable[GopTask]) -> tuple[list[Goal], list[Policy]]:
    """What each GOP's q is searched for, empty where the job has one for all; each GOP's policy, empty without."""
    asked = [(config.of(task.name), task.max_bpp) for task in tasks]
    goals = [goal for own, most in asked if (goal := own.goal(most)) is not None]
    return goals, [own.policy for own, _ in asked if own.policy]


def _failure(task: GopTask, error: Exception, attempt: int) -> GopFailure:
    """``error`` as the GOP's own; raises what is not the GOP's."""
    if isinstance(error, StoreUnavailable):
        raise error
    if is_device_lost(error):
        raise DeviceLost(str(error)) from error
    return GopFailure(task, type(error).__name__, str(error) or repr(error), attempt)
