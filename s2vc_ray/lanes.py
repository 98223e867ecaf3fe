"""The codec behind its lanes: GOPs' frames in, payloads that were verified and measured out.

A lane is what limits how many batches are in the codec at once; a search takes one anew for each of its rounds. On a
GPU, what falls back is coded on CPU cores meanwhile, in no lane. Memory that runs out cuts batches in half. The one
module that reaches the codec, and only when it loads it: importing this module imports no torch. Knows nothing of
sources, storage or Ray.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from s2vc_model.bitstream import EncodedGop
from s2vc_model.errors import ModelError
from s2vc_model.picture_scale import Size
from s2vc_ray.config import JobConfig
from s2vc_ray.errors import ConfigError
from s2vc_ray.executor import CodecIdentity
from s2vc_ray.faces import FaceFinder
from s2vc_ray.fallback import takes
from s2vc_ray.fallback_cores import FallbackCores, timed_av1
from s2vc_ray.fallback_search import fall_back
from s2vc_ray.gop_decoder import AnyGop, codec_name, iter_decode, reread
from s2vc_ray.gop_metrics import check_metrics, gop_metrics
from s2vc_ray.lockstep import Lockstep
from s2vc_ray.policy import Policy
from s2vc_ray.policy_search import hold
from s2vc_ray.risk import Risk, Sight, assess, look
from s2vc_ray.shots import cut, joined
from s2vc_ray.staging import Metric
from s2vc_ray.target_search import Way, Wish, seek_best
from s2vc_ray.targets import Goal
from s2vc_ray.usage import Meter
from s2vc_ray.values import GopCodec

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

    def fitting(self, stage: str, height: int, width: int) -> int:
        """How many GOPs of a frame size one call has memory for; ``stage`` is ``encode`` or ``decode``."""
        ...

    def sizes(self, height: int, width: int) -> Sequence[Size]:
        """The sizes that pictures of a size can be coded at, the likelier one first."""
        ...


CodecLoader = Callable[..., LoadedCodec]
"""(model, device), and what `JobConfig.coding` names, to a codec; `load_s2vc` is the real one."""


def load_s2vc(model: str, device: str, enlarge: bool = True, refine: int = 0) -> LoadedCodec:
    """Load the S2VC codec; for ``enlarge`` and ``refine`` see `JobConfig`.

    Raises:
        ModelError: no such model, or damaged weights.
    """
    from s2vc_model.codec import load_model

    return load_model(model, device=device, enlarge=enlarge, refine=refine)


@dataclass(frozen=True, slots=True)
class CodedGop:
    """What the codec gave for one GOP, with its share of the batch's time in seconds.

    ``risk`` is None where nothing was measured. ``target_value`` is what its goal asks for and ``target_met`` whether
    that is met, None where there was none; ``probes`` how often it was coded for that. ``rule`` names the rule of a
    policy that it is under.
    """

    encoded: AnyGop
    encode_seconds: float
    decode_seconds: float
    metrics: tuple[Metric, ...]
    target_met: bool | None = None
    probes: int = 1
    risk: Risk | None = None
    target_value: float | None = None
    rule: str | None = None

    @property
    def payload(self) -> bytes:
        """Its bytes."""
        return self.encoded.to_payload()

    @property
    def codec(self) -> str:
        """Which codec reads them; see `s2vc_ray.gop_decoder`."""
        return codec_name(self.encoded)

    @property
    def bpp(self) -> float:
        """Payload bits per true pixel."""
        return 8 * len(self.payload) / (self.encoded.width * self.encoded.height * self.encoded.frames)


@dataclass(frozen=True, slots=True)
class _Shown:
    """Of a source GOP the frames to measure, their numbers in it, and what is to be kept of them."""

    frames: Frames
    numbers: list[int]
    sight: Sight


class Lanes:
    """Codes and checks GOPs. Safe to call from several threads.

    Args:
        config: the job.
        lanes: batches that may be in the codec at once.
        overlap: measure a batch, and code what falls back, outside its lane, beside the next one's coding: for GPUs,
            which gain by it. On a CPU it would only take the cores from the coding.
        load_codec: where the codec comes from.
        meter: told how time is spent.
        threads: GOPs that may be coded with the fallback codec at once where that is outside the lanes.
    """

    def __init__(
        self,
        config: JobConfig,
        lanes: int,
        overlap: bool,
        load_codec: CodecLoader,
        meter: Meter,
        threads: int = 1,
    ) -> None:
        self._config = config
        self._load_codec = load_codec
        self._codec: LoadedCodec | None = None
        self._faces: FaceFinder | None = None
        self._loading = threading.Lock()
        self._lanes = threading.Semaphore(lanes)
        self._overlap = overlap
        self._cores = FallbackCores(threads) if overlap else None
        self._measuring = threading.Lock()
        self._lockstep = Lockstep()
        self._meter = meter

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

    def code(
        self, gops: list[Frames], goals: Sequence[Goal] = (), policies: Sequence[Policy] = ()
    ) -> list[CodedGop]:
        """Code GOPs of one frame size, each (T, H, W, 3) uint8 RGB, and check what came out.

        Empties ``gops``: from when they are coded on, only the frames to measure are held.

        Args:
            goals: what each GOP's q is searched for; empty: all are coded at the job's quality.
            policies: what each GOP is held to instead; empty: there is no policy.
        """
        if not gops:
            return []
        codec = self._loaded()
        if goals:
            return self._search(codec, gops, goals, policies)
        return self._code(codec, gops, [self._config.quality] * len(gops), self._shown(gops))

    def at(
        self, gops: list[Frames], qualities: Sequence[float], larger: bool | None = None
    ) -> list[CodedGop]:
        """Like `code`, each GOP at a quality of its own, in quarters of an index; ``larger`` as the codec has it."""
        return self._code(self._loaded(), gops, qualities, self._shown(gops), larger) if gops else []

    def _code(
        self,
        codec: LoadedCodec,
        gops: list[Frames],
        qualities: Sequence[float],
        shown: Sequence[_Shown] | None,
        larger: bool | None = None,
    ) -> list[CodedGop]:
        """Code GOPs, each at its own quality, in a lane; then empty ``gops``, and check unless ``shown`` is None."""
        with self._lane():
            coded = self._encode(codec, gops, qualities, larger)
            gops.clear()
            if shown is None:
                return coded
            if not self._apart:
                return self._check(codec, shown, coded)
        with self._measuring:
            return self._check(codec, shown, coded)

    def _search(
        self, codec: LoadedCodec, gops: list[Frames], goals: Sequence[Goal], policies: Sequence[Policy]
    ) -> list[CodedGop]:
        """Code each GOP at the q, and for a floor at the size, that its goal is found to need. A floor is measured at
        every q that is probed, of a budget only what is taken of it."""
        shown = self._shown(gops)

        def probe(larger: bool | None, wishes: Sequence[Wish]) -> list[CodedGop]:
            measured = [shown[n] for n, _ in wishes] if goals[0].floor else None
            return self._code(codec, [gops[n] for n, _ in wishes], [q for _, q in wishes], measured, larger)

        def fallback(wishes: Sequence[Wish]) -> list[CodedGop]:
            coded = self._encode_av1([(gops[n], int(crf)) for n, crf in wishes])
            with self._room_to_measure():
                return self._check(codec, [shown[n] for n, _ in wishes], coded)

        width, height = gops[0].shape[2], gops[0].shape[1]
        sizes = codec.sizes(height, width) if goals[0].floor else [Size()]
        ways = [Way(partial(probe, size.larger), size.lowest) for size in sizes]
        if policies:
            code_av1 = fallback if takes(width, height) else None
            found = hold(policies, goals[0].top, [one.sight for one in shown], ways, code_av1)
            gops.clear()
            return found
        found = seek_best(goals, ways)
        # Only here is it known that a GOP misses its target while its frames are still at hand.
        if takes(width, height):
            found = fall_back(self._config.fallback, found, goals, fallback)
        gops.clear()
        if goals[0].floor is not None:
            return found
        with self._room_to_measure():
            return self._check(codec, shown, found)

    def _shown(self, gops: Sequence[Frames]) -> list[_Shown]:
        """Of each source GOP the frames to measure."""
        chosen = [(gop, self._measured(len(gop))) for gop in gops]
        return [
            _Shown(frames := gop if len(numbers) == len(gop) else gop[numbers], numbers, self._look(frames))
            for gop, numbers in chosen
        ]

    def _look(self, frames: Frames) -> Sight:
        return look(frames, self._faces.find(frames) if self._faces else None)

    @contextmanager
    def _lane(self) -> Iterator[None]:
        with self._meter.doing("wait"):
            self._lanes.acquire()
        try:
            yield
        finally:
            self._lanes.release()

    @property
    def _apart(self) -> bool:
        """Whether measuring goes on outside the lanes. Beside other coding there may be no memory left for it."""
        return self._overlap and not self._lockstep.tight

    def _room_to_measure(self) -> AbstractContextManager[object]:
        """To be entered, in no lane, for measuring."""
        return self._measuring if self._apart else self._lane()

    def _encode(
        self, codec: LoadedCodec, gops: Sequence[Frames], qualities: Sequence[float], larger: bool | None
    ) -> list[CodedGop]:
        """What a reader will find of GOPs, each coded at its own quality."""

        def encode(part: Sequence[tuple[Frames, float]]) -> list[EncodedGop]:
            return codec.encode_gops([frames for frames, _ in part], [q for _, q in part], larger)

        stage = _stage("encode", gops)
        begun = time.perf_counter()
        with self._meter.coding("encode"):
            shots = [cut(gop) if self._config.scene_cuts else [gop] for gop in gops]
            items = [(shot, q) for own, q in zip(shots, qualities, strict=True) for shot in own]
            coded = self._lockstep.run(
                stage, items, encode, alone=self._measuring, most=codec.fitting(*stage)
            )
        seconds = (time.perf_counter() - begun) / len(gops)
        return [CodedGop(reread(gop), seconds, 0.0, ()) for gop in joined(coded, map(len, shots))]

    def _encode_av1(self, wishes: Sequence[tuple[Frames, int]]) -> list[CodedGop]:
        """What a reader will find of GOPs, each coded as AV1 at its own CRF."""
        if self._cores is not None:
            with self._meter.doing("fallback"):
                coded = self._cores.code(wishes)
        else:
            with self._lane(), self._meter.coding("fallback"):
                coded = [timed_av1(*wish) for wish in wishes]
        return [CodedGop(reread(gop), seconds, 0.0, ()) for gop, seconds in coded]

    def _check(
        self, codec: LoadedCodec, shown: Sequence[_Shown], coded: Sequence[CodedGop]
    ) -> list[CodedGop]:
        """Verify and measure what a reader will get: the payloads' own bytes, parsed and decoded afresh."""
        if not self._config.metrics.enabled:
            return list(coded)
        parsed, names = [one.encoded for one in coded], self._config.metrics.names
        with self._meter.coding("measure"):
            begun = time.perf_counter()
            stage = _stage("decode", [one.frames for one in shown])
            decoded = self._lockstep.run(
                stage, parsed, lambda part: self._decode(codec, part), most=codec.fitting(*stage)
            )
            seconds = (time.perf_counter() - begun) / len(parsed)
            return [
                replace(
                    one,
                    decode_seconds=seconds,
                    metrics=gop_metrics(own.frames, frames, own.numbers, names, str(codec.device)),
                    risk=assess(own.sight, own.frames, frames, own.numbers),
                )
                for one, own, frames in zip(coded, shown, decoded, strict=True)
            ]

    def _measured(self, frames: int) -> list[int]:
        """Which frames of a GOP are measured."""
        from s2vc_model.metrics import sample_indices

        policy = self._config.metrics
        return list(sample_indices(frames, policy.sample)) if policy.enabled else []

    def _decode(self, codec: LoadedCodec, gops: Sequence[AnyGop]) -> list[Frames]:
        """Decode all of ``gops``, which checks every symbol, and keep the frames to measure."""
        import numpy as np

        wanted = [frozenset(self._measured(gop.frames)) for gop in gops]
        kept: list[list[Frames]] = [[] for _ in gops]
        for at, pictures in enumerate(iter_decode(codec, gops)):
            for number, picture in pictures.items():
                if at in wanted[number]:
                    kept[number].append(picture)
        return [np.stack(frames) for frames in kept]

    def _loaded(self) -> LoadedCodec:
        with self._loading:
            if self._codec is None:
                try:
                    config = self._config
                    codec = self._load_codec(config.model, config.device, **config.coding)
                    if self._config.metrics.enabled:
                        check_metrics(self._config.metrics.names)
                    if self._config.metrics.faces:
                        self._faces = FaceFinder()
                except (ModelError, ImportError, OSError) as error:
                    raise ConfigError(f"model {self._config.model!r} cannot be used here: {error}") from error
                self._codec = codec
                self._meter.begin()
            return self._codec


def _stage(name: str, gops: Sequence[Frames]) -> tuple[str, int, int]:
    _, height, width, _ = gops[0].shape
    return name, height, width
