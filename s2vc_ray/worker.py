"""One encoder: a batch of GOP references in, staged payloads and their measurements out.

Decodes the source's frames, codes them in lockstep, decodes its own *payload* again to measure it, and
stages both as one object per GOP. Loads the codec once. The one module of the job, with `decompress`, that
reaches the codec, and only when it loads it: importing this module imports no torch. Knows nothing of Ray or
of archives.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import ModelError
from s2vc_ray.config import JobConfig
from s2vc_ray.errors import ConfigError, ObjectMissing
from s2vc_ray.executor import BatchResult, CodecIdentity, GopBatch, GopFailure, GopOutcome, GopTask
from s2vc_ray.frames import DecodedGop, decode_gop
from s2vc_ray.sources import open_media
from s2vc_ray.staging import Metric, StagedGop, pack_staged, unpack_staged
from s2vc_ray.storage import open_storage
from s2vc_ray.values import GopCodec, GopSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Frames = npt.NDArray[np.uint8]


class LoadedCodec(GopCodec, Protocol):
    """A codec that can say where its weights run."""

    @property
    def preset(self) -> str:
        """Name of its configuration."""
        ...

    @property
    def parallel(self) -> int:
        """How many GOPs are best given to one call."""
        ...

    @property
    def device(self) -> object:
        """Where it runs; its ``str`` is recorded."""
        ...


CodecLoader = Callable[[str, str], LoadedCodec]
"""(model, device) to a codec; `load_s2vc` is the real one."""


def load_s2vc(model: str, device: str) -> LoadedCodec:
    """Load the S2VC codec.

    Raises:
        ModelError: no such model, or damaged weights.
    """
    from s2vc_model.codec import load_model

    return load_model(model, device=device)


@dataclass(frozen=True, slots=True)
class _Coded:
    """What the codec gave for one GOP, with its share of the batch's time."""

    payload: bytes
    encoded: EncodedGop
    encode_seconds: float
    decode_seconds: float
    metrics: tuple[Metric, ...]


class Worker:
    """Codes batches for one job. Safe to call from several threads: some decode their sources while others code.

    Args:
        destination: where staged GOPs go; see `s2vc_ray.storage.open_storage`.
        config: the job.
        threads: CPU threads for decoding a source.
        coding: batches that may be in the codec at once.
        load_codec: where the codec comes from.
    """

    def __init__(
        self,
        destination: str,
        config: JobConfig,
        *,
        threads: int = 1,
        coding: int = 1,
        load_codec: CodecLoader = load_s2vc,
    ) -> None:
        self._storage = open_storage(destination)
        self._config = config
        self._threads = threads
        self._load_codec = load_codec
        self._codec: LoadedCodec | None = None
        self._loading = threading.Lock()
        self._coding = threading.Semaphore(coding)

    def identity(self) -> CodecIdentity:
        """Load the codec if need be and say which it is.

        Raises:
            ConfigError: the model, the device or the metrics' weights are not to be had.
        """
        codec = self._loaded()
        # Named without importing it: a codec without torch is a codec all the same.
        torch = getattr(sys.modules.get("torch"), "__version__", "")
        return CodecIdentity(
            codec.model_id, codec.weights_sha256, codec.preset, str(codec.device), str(torch)
        )

    def encode(self, batch: GopBatch) -> BatchResult:
        """Code and stage ``batch``; whatever goes wrong with a GOP is its `GopFailure`.

        GOPs that are staged already are returned as they lie there.
        """
        outcomes: dict[GopTask, GopOutcome] = {}
        sources: dict[GopTask, tuple[DecodedGop, float]] = {}
        for task in batch.tasks:
            # Any exception is about this GOP, and must reach the manifest as its error instead of ending the
            # job.
            try:
                staged = self._already_staged(task)
                if staged is not None:
                    outcomes[task] = staged
                else:
                    sources[task] = self._decode_source(task.spec)
            except Exception as error:
                outcomes[task] = _failure(task, error, batch.attempt)
        try:
            coded = self._code([gop.frames for gop, _ in sources.values()])
        except Exception as error:
            # Side by side, one GOP's failure is every GOP's; each is tried again alone.
            outcomes.update({task: _failure(task, error, batch.attempt) for task in sources})
        else:
            for (task, (gop, seconds)), result in zip(sources.items(), coded, strict=True):
                try:
                    outcomes[task] = self._stage(task, batch.attempt, gop, seconds, result)
                except Exception as error:
                    outcomes[task] = _failure(task, error, batch.attempt)
        return BatchResult(batch, tuple(outcomes[task] for task in batch.tasks))

    def _loaded(self) -> LoadedCodec:
        with self._loading:
            if self._codec is None:
                try:
                    codec = self._load_codec(self._config.model, self._config.device)
                    if self._config.metrics.enabled:
                        _check_metrics(self._config.metrics.names)
                except (ModelError, ImportError, OSError) as error:
                    raise ConfigError(f"model {self._config.model!r} cannot be used here: {error}") from error
                self._codec = codec
            return self._codec

    def _already_staged(self, task: GopTask) -> StagedGop | None:
        try:
            return unpack_staged(self._storage.read(task.key), task.key)[0]
        except ObjectMissing:
            return None

    def _decode_source(self, spec: GopSpec) -> tuple[DecodedGop, float]:
        begun = time.perf_counter()
        with open_media(spec.source_uri) as source:
            gop = decode_gop(source, spec, threads=self._threads)
        return gop, time.perf_counter() - begun

    def _code(self, gops: Sequence[Frames]) -> list[_Coded]:
        if not gops:
            return []
        codec = self._loaded()
        with self._coding:
            begun = time.perf_counter()
            payloads = [gop.to_payload() for gop in codec.encode_gops(gops, self._config.quality)]
            encoded_at = time.perf_counter()
            # Measured is what a reader will get: the payload's own bytes, parsed and decoded afresh.
            parsed = [EncodedGop.from_payload(payload) for payload in payloads]
            decoded = self._decode(codec, parsed) if self._config.metrics.enabled else []
            decode_seconds = (time.perf_counter() - encoded_at) / len(gops)
            metrics = [self._measure(a, b, codec) for a, b in zip(gops, decoded, strict=bool(decoded))]
        encode_seconds = (encoded_at - begun) / len(gops)
        return [
            _Coded(payload, gop, encode_seconds, decode_seconds, metrics[at] if metrics else ())
            for at, (payload, gop) in enumerate(zip(payloads, parsed, strict=True))
        ]

    def _decode(self, codec: LoadedCodec, gops: Sequence[EncodedGop]) -> list[dict[int, Frames]]:
        """Decode all of ``gops``, which checks every symbol, and keep the frames to measure, by number."""
        from s2vc_model.metrics import sample_indices

        wanted = [set(sample_indices(gop.frames, self._config.metrics.sample)) for gop in gops]
        kept: list[dict[int, Frames]] = [{} for _ in gops]
        for at, pictures in enumerate(codec.iter_decode(gops)):
            for number, picture in pictures.items():
                if at in wanted[number]:
                    kept[number][at] = picture
        return kept

    def _measure(
        self, reference: Frames, decoded: dict[int, Frames], codec: LoadedCodec
    ) -> tuple[Metric, ...]:
        import numpy as np

        from s2vc_model.metrics import measure

        shown = reference[list(decoded)]
        names = self._config.metrics.names
        results = measure(shown, np.stack(list(decoded.values())), names, device=str(codec.device))
        return tuple(Metric(name, r.mean, r.worst, len(r.frames)) for name, r in results.items())

    def _stage(
        self, task: GopTask, attempt: int, gop: DecodedGop, seconds: float, coded: _Coded
    ) -> StagedGop:
        spec = task.spec
        identity = self.identity()
        measured = self._config.metrics.enabled
        staged = StagedGop(
            video_id=spec.video_id,
            index=spec.index,
            key=task.key,
            pts=gop.pts,
            frames_expected=spec.frames,
            frames_corrupt=gop.corrupt,
            width=coded.encoded.width,
            height=coded.encoded.height,
            q=coded.encoded.q,
            payload_bytes=len(coded.payload),
            payload_sha256=hashlib.sha256(coded.payload).hexdigest(),
            bits_i=coded.encoded.bits_i,
            bits_p=coded.encoded.bits_p,
            metrics=coded.metrics,
            metric_policy=str(self._config.metrics),
            verified="decoded" if measured else "no",
            model_id=identity.model_id,
            weights_sha256=identity.weights_sha256,
            device=identity.device,
            torch=identity.torch,
            source_seconds=seconds,
            encode_seconds=coded.encode_seconds,
            decode_seconds=coded.decode_seconds if measured else 0.0,
            attempts=attempt,
        )
        if self._storage.put(staged.key, pack_staged(staged, coded.payload)):
            return staged
        # A second driver, or an earlier life of this worker, was first: its bytes are the ones to archive.
        return unpack_staged(self._storage.read(staged.key), staged.key)[0]


def _check_metrics(names: tuple[str, ...]) -> None:
    """Fail at the start of a job, not at its first GOP, when a metric lacks its weights."""
    import numpy as np

    from s2vc_model.metrics import MetricWeightsMissing, measure

    grey = np.full((1, 64, 64, 3), 128, np.uint8)
    try:
        measure(grey, grey, names)
    except MetricWeightsMissing as error:
        raise ConfigError(f"{error} Or measure without it: --metric psnr, or --metrics none.") from error


def _failure(task: GopTask, error: Exception, attempt: int) -> GopFailure:
    return GopFailure(task, type(error).__name__, str(error) or repr(error), attempt)
