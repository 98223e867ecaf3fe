"""What one job was asked to do: the only place where options are checked.

A `JobConfig` is built once at the edge (the CLI or a `jobs/` entry point), travels unchanged to the workers
and is written into every manifest row. Knows nothing of files, Ray or the codec.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from s2vc_model.config import QUARTERS
from s2vc_ray.errors import ConfigError
from s2vc_ray.policy import FALLBACKS, Policy
from s2vc_ray.targets import Floor, Goal, Target

DEVICES = ("auto", "cpu", "cuda")
EXECUTORS = ("ray", "local")
METRICS = ("psnr", "ms_ssim", "lpips_alex")
"""What is measured when nothing else is asked for."""
SEQUENCE_METRICS = ("vmaf", "vmaf_neg", "flicker")
"""What is measured on consecutive frames."""
MEASURABLE = (*METRICS, "dists", *SEQUENCE_METRICS)
PLACEMENTS = ("spread", "pack")
MAX_GOP = 1024
QUALITY, MAX_QUALITY = 56, 63
"""The quality index when none is asked for; the highest."""
MAX_REFINE = 64
MAX_WORKERS = 65536


@dataclass(frozen=True, slots=True)
class MetricPolicy:
    """Which frames of a GOP are measured: none (``sample == 0``), a sample, or all (``sample is None``).

    ``names`` are those of `s2vc_model.metrics`. Worst-frame figures are over the measured frames only, which
    is why the manifest records the policy beside them. ``faces`` are looked for in the same frames.
    """

    sample: int | None = 4
    names: tuple[str, ...] = METRICS
    faces: bool = False

    def __post_init__(self) -> None:
        if "cvvdp" in self.names:
            raise ConfigError(
                "cvvdp judges whole clips at their frame rate: measure it with jobs.bench quality"
            )
        unknown = set(self.names) - set(MEASURABLE)
        if unknown or not self.names:
            raise ConfigError(
                f"unknown metric {', '.join(sorted(unknown)) or '(none)'}: choose from {', '.join(MEASURABLE)}"
            )
        consecutive = [name for name in self.names if name in SEQUENCE_METRICS]
        if self.sample and consecutive:
            raise ConfigError(
                f"metric {', '.join(consecutive)} needs consecutive frames: give --metrics full, not {self}"
            )
        if self.sample is not None and self.sample < 0:
            raise ConfigError(
                f"metrics sample:{self.sample} is negative: give sample:N with N >= 1, 'full' or 'none'"
            )
        if self.faces and not self.enabled:
            raise ConfigError(
                "faces are looked for in the frames that are measured: give --metrics sample:N or full"
            )

    @classmethod
    def parse(cls, text: str, names: tuple[str, ...] = METRICS, *, faces: bool = False) -> MetricPolicy:
        """Read ``none``, ``sample:N`` (N frames of each GOP, N >= 1) or ``full``.

        Raises:
            ConfigError: anything else.
        """
        if text == "none":
            return cls(sample=0, names=names, faces=faces)
        if text == "full":
            return cls(sample=None, names=names, faces=faces)
        kind, _, count = text.partition(":")
        if kind == "sample" and count.isascii() and count.isdigit() and int(count) > 0:
            return cls(sample=int(count), names=names, faces=faces)
        raise ConfigError(
            f"metrics {text!r} is not understood: give 'none', 'sample:N' with N >= 1, or 'full'"
        )

    @property
    def enabled(self) -> bool:
        """Whether any frame is decoded and measured."""
        return self.sample != 0

    def __str__(self) -> str:
        if self.sample == 0:
            return "none"
        return "full" if self.sample is None else f"sample:{self.sample}"


@dataclass(frozen=True, slots=True)
class JobConfig:
    """One job's options, validated on construction.

    Attributes:
        gop: frames per GOP, 1..1024; the last GOP of a video may be shorter.
        scene_cuts: begin anew with an intra frame where a scene begins within a GOP. See `s2vc_ray.shots`.
        deinterlace: make progressive pictures of those that the source's decoder flags as interlaced.
        enlarge: code small pictures larger than they are where the model gains by it, or, for a floor, where that is
            found to take fewer bytes; without, they take about half of the time, and more bytes to look as good.
        refine: steps by which the first picture of each GOP is improved before it is coded, 0..64; it takes time and
            mostly pays. See `s2vc_model.refine`.
        quality: quality index, 0 (smallest) .. 63 (best). The default is the lowest at which what enters a scene
            has been seen to appear. With a ``target`` the highest that any GOP may take.
        target: what each GOP's own quality index is searched for; None: ``quality`` is every GOP's. See
            `s2vc_ray.targets`.
        fallback: whether AV1 may hold a GOP at the target's floor: ``av1`` where S2VC does not reach it; ``smaller``
            also where AV1 reaches it in fewer bytes; or ``none``. Without a floor it does nothing.
        policy: what all GOPs are held to, rule by rule; ``target`` and ``fallback`` are then the policy's. See
            `s2vc_ray.policy`. Where it says other things of some sources, `of` has a source's own.
        model: a packaged model's name, or a directory with weights.
        device: where the codec runs; ``auto`` is CUDA when the worker has a GPU.
        executor: ``ray`` (actors, on this machine or a cluster) or ``local`` (this process, for debugging).
        workers: encoder actors; 0 is as many as the cluster has room for, also when nodes join it later.
        workers_max: with it the pool is elastic: at least ``workers``, and up to so many while there is work for
            them, which an autoscaling cluster is asked for. 0 is a fixed number. See `parse_workers`.
        actors_per_gpu: actors that share a GPU: more than one fill it where one small model's kernels do not.
        placement: ``spread`` actors over nodes, for their network and memory; or ``pack`` them on few, so that
            the others can be given back.
        ray_address: a running cluster to join; None is the one this job was submitted to, else this machine.
        metrics: what is decoded again and measured while encoding.
        batch: most GOPs of one video coded in lockstep; more is faster on a GPU and takes more memory. 0 is 4
            on a GPU and 1 on a CPU.
        threads: CPU cores of each worker: for video decoding beside a GPU; without one, for as many batches side by
            side. 0 chooses (2 without GPUs).
        attempts: how often a GOP that fails is tried before its video is given up.
        passthrough: carry audio, subtitles, attachments and metadata into the archive.
        allow_larger: publish archives that are larger than their sources, too.
    """

    gop: int = 32
    scene_cuts: bool = True
    deinterlace: bool = False
    enlarge: bool = True
    refine: int = 0
    quality: int = QUALITY
    target: Target | None = None
    fallback: str = "av1"
    policy: Policy | None = None
    model: str = "small"
    device: str = "auto"
    executor: str = "ray"
    workers: int = 0
    workers_max: int = 0
    actors_per_gpu: int = 1
    placement: str = "spread"
    ray_address: str | None = None
    metrics: MetricPolicy = MetricPolicy()
    batch: int = 0
    threads: int = 0
    attempts: int = 3
    passthrough: bool = True
    allow_larger: bool = False

    def __post_init__(self) -> None:
        _in_range("gop", self.gop, 1, MAX_GOP)
        _in_range("quality", self.quality, 0, MAX_QUALITY)
        _in_range("refine", self.refine, 0, MAX_REFINE)
        _in_range("workers", self.workers, 0, MAX_WORKERS)
        _in_range("workers_max", self.workers_max, 0, MAX_WORKERS)
        _in_range("actors_per_gpu", self.actors_per_gpu, 1, 16)
        _in_range("batch", self.batch, 0, 256)
        _in_range("threads", self.threads, 0, 256)
        _in_range("attempts", self.attempts, 1, 100)
        _one_of("device", self.device, DEVICES)
        _one_of("executor", self.executor, EXECUTORS)
        _one_of("placement", self.placement, PLACEMENTS)
        _one_of("fallback", self.fallback, FALLBACKS)
        if self.fallback == "smaller" and not isinstance(self.target, Floor):
            raise ConfigError(
                "fallback 'smaller' compares what two codecs need for one quality: give a target such as lpips=0.15"
            )
        if self.policy:
            self._check_policy(self.policy)
        if 0 < self.workers_max < self.workers:
            raise ConfigError(
                f"workers_max is {self.workers_max}, less than workers, {self.workers}: give MIN:MAX with MIN <= MAX"
            )
        if not self.model:
            raise ConfigError(
                "model is empty: give a packaged model's name such as 'small', or a weights directory"
            )
        if isinstance(self.target, Floor) and (
            not self.metrics.enabled or self.target.metric not in self.metrics.names
        ):
            raise ConfigError(
                f"target {self.target} cannot be held without measuring it: measure {self.target.metric}, and "
                "sample:N or full"
            )
        if self.ray_address and self.executor != "ray":
            raise ConfigError(f"ray address {self.ray_address!r} needs executor 'ray', not {self.executor!r}")

    def _check_policy(self, policy: Policy) -> None:
        if (self.target, self.fallback) != (policy.floor, policy.fallback):
            raise ConfigError("a policy says which target and fallback there are: give no others")
        if policy.needs_faces and not self.metrics.faces:
            raise ConfigError("the policy has a rule about faces: have them looked for")
        if lacking := sorted(policy.metrics - set(self.metrics.names)):
            raise ConfigError(
                f"the policy has a floor of {lacking[0]}, which is not measured: measure it too"
            )

    def of(self, source: str) -> JobConfig:
        """What is asked of the source of this name: of a policy with ``where`` the part that holds for it."""
        if not self.policy or not self.policy.where:
            return self
        own = self.policy.of(source)
        return replace(self, policy=own, target=own.floor, fallback=own.fallback)

    def config_hash(self, weights_sha256: str) -> str:
        """16 hex digits over what decides an archive's bytes: GOP length, scene cuts, deinterlacing, the coded size,
        quality or what it is searched for, policy, passthrough and the weights.

        The weights' digest stands for ``model``: one name may come to mean other weights, and one set of
        weights may lie in several places. Workers, devices and metrics are left out: they change when and
        where bytes are made.
        """
        where = [(one.sources, one.sha256) for one in self.policy.where] if self.policy else []
        decisive = {
            "gop": self.gop,
            "quality": self.quality,
            "passthrough": self.passthrough,
            "weights": weights_sha256,
            # Only where asked for: what was made before there were these options keeps its hash.
            **({"shots": True} if self.scene_cuts else {}),
            **({"deinterlace": True} if self.deinterlace else {}),
            **self.coding,
            **({"target": self.target_text} if self.target else {}),
            **({"policy": self.policy.sha256} if self.policy else {}),
            # Of a whole job; the hash of a video is of its own policy, see `of`.
            **({"where": where} if where else {}),
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def coding(self) -> dict[str, Any]:
        """What a codec is asked for besides the usual, as its loader's options."""
        return {
            **({} if self.enlarge else {"enlarge": False}),
            **({"refine": self.refine} if self.refine else {}),
        }

    @property
    def policy_text(self) -> str:
        """The policy's canonical text; empty without."""
        return self.policy.text if self.policy else ""

    @property
    def target_text(self) -> str:
        """The target and what else decides how it is met, in one line; empty without.

        Of a floor that is also which frames are measured, and the fallback where it is not the usual one.
        """
        if not isinstance(self.target, Floor):
            return str(self.target or "")
        other = "" if self.fallback == FALLBACKS[0] else f" fallback={self.fallback}"
        return f"{self.target} of={self.metrics}{other}"

    def goal(self, max_bpp: float | None = None) -> Goal | None:
        """What one GOP's q is searched for; None where ``quality`` is every GOP's.

        Args:
            max_bpp: the GOP's own budget where the target is the size of its video's archive.
        """
        if self.target is None:
            return None
        if isinstance(self.target, Floor):
            return Goal(self.target, self.target.max_bpp, self.quality, QUARTERS)
        own = self.target.value if self.target.kind == "bpp" else max_bpp
        return Goal(None, own, self.quality, QUARTERS)

    def batch_on(self, device: str) -> int:
        """GOPs in lockstep on a codec's ``device`` ("cpu", "cuda:0", ...)."""
        return self.batch or (1 if device == "cpu" else 4)

    def to_json(self) -> str:
        """All options, for the manifest."""
        return json.dumps(
            {
                **asdict(self),
                "metrics": str(self.metrics),
                "metric_names": self.metrics.names,
                "faces": self.metrics.faces,
                "target": self.target_text or None,
                "policy": self.policy_text or None,
                **({"exclude": self.policy.exclude} if self.policy and self.policy.exclude else {}),
                **({"policy_where": self.policy.name} if self.policy and self.policy.name else {}),
            },
            sort_keys=True,
        )


def parse_workers(text: str) -> tuple[int, int]:
    """``workers`` and ``workers_max`` from ``N`` (so many) or ``MIN:MAX`` (an elastic pool, MAX at least 1).

    Raises:
        ConfigError: it is neither.
    """
    low, colon, high = text.partition(":")
    numbers = [low, high] if colon else [low]
    if not all(number.isascii() and number.isdigit() for number in numbers) or (colon and not int(high)):
        raise ConfigError(f"workers {text!r}: give a number such as 4 or a range such as 2:16")
    return int(low), int(high or 0)


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}: give a whole number from {low} to {high}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}: choose one of {', '.join(choices)}")
