"""Frames to bytes and back: lockstep coding of several GOPs of one size.

Encoding runs the transforms and the integer priors only; the U-Net and the pixel decoder stand outside the coding loop
and run when decoding. On a GPU frame t of all GOPs is one batch, and GOPs that ended drop out. On a CPU each GOP has
one core to itself, as many side by side as there are cores: convolutions of one small frame spread badly over cores,
and a GOP's bytes then depend neither on the number of cores nor on its neighbours. Nothing survives a call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s2vc_model.bitstream import MAX_SIDE, EncodedGop
from s2vc_model.config import QUALITIES, QUARTERS
from s2vc_model.entropy import Checksum, Coder, StreamReader, StreamWriter
from s2vc_model.errors import ModelError, SymbolMismatch
from s2vc_model.heap import give_back
from s2vc_model.latents import Block, DecodedLatents, decode_frame, encode_frame
from s2vc_model.memory import free_bytes, gops_that_fit
from s2vc_model.motion import block_motion, luma
from s2vc_model.picture_scale import SCALES, PictureScales, Size, coded_size
from s2vc_model.pictures import padded, padded_side, resized, sharpened
from s2vc_model.prior import Prior
from s2vc_model.state import DiffusionBuffer, FeatureBuffer, GopState
from s2vc_model.transforms import InterTransform, IntraTransform
from s2vc_model.weight_files import LoadedWeights, load_weights

if TYPE_CHECKING:
    from s2vc_model.refine import Refiner

Frames = npt.NDArray[np.uint8]
_In = TypeVar("_In")
_Out = TypeVar("_Out")
_LOCKSTEP = 4
"""GOPs of a batch on a GPU that fill it."""


class S2vcCodec:
    """A loaded model. Thread-safe: calls share nothing but weights.

    Attributes:
        model_id: preset and start of the weights' digest; what an archive names.
        weights_sha256: digest of the weights file.
        reads: digests of earlier weights whose streams it decodes too; see `s2vc_model.succession`.
        preset: name of the configuration.
        device: where it runs.
        parallel: how many GOPs are best given to one call.
        lockstep: whether the GOPs of a call are coded as one batch; None: on a GPU.
        half: whether the float networks compute in bf16; None: on a GPU. No symbol depends on it.

    Args:
        enlarge: whether pictures are coded larger than they are where the weights' rules say so. Decoding asks no rule.
        refine: steps by which the latents of a GOP's first picture are improved; see `s2vc_model.refine`. 0: none.
    """

    def __init__(
        self,
        weights: LoadedWeights,
        device: torch.device,
        lockstep: bool | None = None,
        half: bool | None = None,
        enlarge: bool = True,
        refine: int = 0,
    ) -> None:
        self.model_id, self.weights_sha256 = weights.model_id, weights.sha256
        self.reads: Sequence[str] = weights.reads
        self.preset, self.device = weights.network.config.preset, device
        self._half = device.type == "cuda" if half is None else half
        quick = device.type == "cpu" and not self._half
        weights.network.requires_grad_(False)
        weights.network.for_inference(torch.bfloat16 if self._half else None, quick)
        self._net = weights.network.to(device).to(memory_format=torch.channels_last)
        self._coders = {kind: Coder(tables) for kind, tables in weights.tables.items()}
        self._scales = weights.scales if enlarge else PictureScales()
        self._refiner: Refiner | None = None
        if refine:
            # Imported here: most processes code or read without, and gradients bring a network of their own.
            from s2vc_model.refine import Refiner

            self._refiner = Refiner(self._net, refine, device)
        self.lockstep = device.type != "cpu" if lockstep is None else lockstep
        self.parallel = _LOCKSTEP if self.lockstep else _cores()
        self._lanes = ThreadPoolExecutor(_cores(), "s2vc-lane", torch.set_num_threads, (1,))

    def fitting(self, stage: str, height: int, width: int) -> int:
        """How many GOPs of a frame size one call has memory for now; ``stage`` is ``encode`` or ``decode``.

        Side by side on a CPU there are never more than cores under way, and a call takes any number.
        """
        if not self.lockstep:
            return sys.maxsize
        rows, cols = coded_size(height, width, self._scales.scale(height, width))
        pixels, itemsize = padded_side(rows) * padded_side(cols), 2 if self._half else 4
        if stage == "encode" and self._refiner and pixels <= self._refiner.most_pixels:
            stage = "refine"
        free = free_bytes(self.device)
        return gops_that_fit(self._net.config.generator, stage, pixels, free, itemsize)

    def sizes(self, height: int, width: int) -> Sequence[Size]:
        """The sizes that pictures of a size can be coded at, the likelier one first; see `encode_gops`."""
        return self._scales.sizes(height, width)

    def encode_gops(
        self, gops: Sequence[Frames], q: float | Sequence[float], larger: bool | None = None
    ) -> list[EncodedGop]:
        """Code GOPs of one frame size.

        Args:
            gops: each (T, H, W, 3) uint8 RGB; T may differ, H and W (1..65535) may not.
            q: quality index 0 (smallest) .. 63 (best) in quarters, one for all or one each.
            larger: code pictures enlarged, or at their own size, whatever the weights' rules say; None: as they say.

        Raises:
            ModelError: no frames, wrong type or shape, mixed sizes, or q out of range.
        """
        qualities = [q] * len(gops) if isinstance(q, int | float) else list(q)
        _check_frames(gops, qualities)
        height, width = gops[0].shape[1:3]
        scales = [self._scale(height, width, own, larger) for own in qualities]
        work = [_Writing(*each) for each in zip(gops, qualities, scales, strict=True)]
        self._each(lambda group: self._encode([work[i] for i in group]), self._together(scales))
        if not self.lockstep:
            give_back()
        return [w.finish() for w in work]

    @torch.inference_mode()
    def _encode(self, work: list[_Writing]) -> None:
        """Code GOPs of one scale in lockstep."""
        work.sort(key=lambda w: -len(w.frames))
        state: GopState | None = None
        before: Tensor | None = None
        for t in range(len(work[0].frames)):
            live = sum(len(w.frames) > t for w in work)
            sources = self._upload([w.frames[t] for w in work[:live]])
            height, width = coded_size(sources.shape[2], sources.shape[3], work[0].scale)
            x = padded(resized(sources, height, width)).contiguous(memory_format=torch.channels_last)
            quality = torch.tensor([w.table_row for w in work[:live]], device=self.device)
            light = luma(x)
            with self._autocast():
                if state is None or before is None:
                    y = self._net.intra.analysis(x)
                    feature = None
                else:
                    state = _first(state, live)
                    feature = self._net.inter.extract(state.buffer.feature)
                    y = self._net.inter.encode(x, state.buffer, feature, block_motion(light, before[:live]))
                transform, prior = self._kind(t)
                z = transform.hyper(y)
                if self._refiner and t == 0:
                    y, z = self._refined(self._refiner, x, sources, (height, width), quality, y, z)
            carried = state.prior if state else None
            blocks, latents = encode_frame(prior, y.float(), z.float(), quality, carried)
            for w, own, digest in zip(work, blocks, latents.digests, strict=False):
                w.add(t, own, digest, self._coders[prior_name(t)])
            if any(len(w.frames) > t + 1 for w in work):
                state = self._advance(latents, state, feature)
                before = light

    def _scale(self, height: int, width: int, q: float, larger: bool | None) -> int:
        if larger is None:
            return self._scales.scale(height, width, q)
        try:
            return self._scales.larger(height, width, q) if larger else 0
        except ValueError as error:
            raise ModelError(str(error)) from error

    def _refined(
        self,
        refiner: Refiner,
        x: Tensor,
        sources: Tensor,
        size: tuple[int, int],
        quality: Tensor,
        y: Tensor,
        z: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Better latents of first pictures, one after the other: gradients take memory."""
        rows = [slice(i, i + 1) for i in range(len(x))]
        better = [refiner(x[i], sources[i], size, quality[i], y[i].float(), z[i].float()) for i in rows]
        return torch.cat([one for one, _ in better]), torch.cat([one for _, one in better])

    def decode_gops(self, gops: Sequence[EncodedGop]) -> list[Frames]:
        """Decode GOPs of one frame size to (T, H, W, 3) uint8 RGB each.

        Raises:
            ModelError: mixed sizes.
            BitstreamError, SymbolMismatch: the bytes are damaged or were written with other weights.
        """
        out = [np.empty((g.frames, g.height, g.width, 3), np.uint8) for g in gops]
        for t, frames in enumerate(self.iter_decode(gops)):
            for i, frame in frames.items():
                out[i][t] = frame
        return out

    def iter_decode(self, gops: Sequence[EncodedGop]) -> Iterator[dict[int, Frames]]:
        """Like :meth:`decode_gops`, one frame index at a time: GOP number -> (H, W, 3) uint8.

        A lone GOP on a CPU has all of torch's threads.
        """
        _check_sizes(gops)
        decoders = [self._decode(gops, group) for group in self._together([gop.scale for gop in gops])]
        if len(decoders) == 1:
            yield from decoders[0]
        else:
            yield from self._in_step(decoders)
        if not self.lockstep:
            give_back()

    def check_symbols(self, gops: Sequence[EncodedGop]) -> None:
        """Read every symbol of GOPs of one frame size, and check all their checksums, without making a picture.

        The priors depend on symbols alone, so transforms, U-Net and pixel decoder are left out: the exact integer half
        of decoding, and a fraction of its cost.

        Raises:
            ModelError: mixed sizes.
            BitstreamError, SymbolMismatch: the bytes are damaged or were written with other weights.
        """
        _check_sizes(gops)
        groups = self._together([gop.scale for gop in gops])
        self._each(lambda group: self._read_through([gops[i] for i in group]), groups)
        if not self.lockstep:
            give_back()

    @torch.inference_mode()
    def _read_through(self, gops: Sequence[EncodedGop]) -> None:
        for _ in self._latents(sorted(gops, key=lambda gop: -gop.frames)):
            pass

    def _together(self, scales: Sequence[int]) -> list[list[int]]:
        """Numbers of the GOPs, of these scales, that are coded as one batch: those of one scale, or each by itself."""
        if not self.lockstep:
            return [[i] for i in range(len(scales))]
        return [[i for i, own in enumerate(scales) if own == scale] for scale in sorted(set(scales))]

    def _in_step(self, decoders: Sequence[Iterator[dict[int, Frames]]]) -> Iterator[dict[int, Frames]]:
        """What decoders find at each frame index."""
        while True:
            step = self._each(lambda decoder: next(decoder, None), decoders)
            frames = {i: frame for found in step if found for i, frame in found.items()}
            if not frames:
                return
            yield frames

    @torch.inference_mode()
    def _decode(self, gops: Sequence[EncodedGop], numbers: Sequence[int]) -> Iterator[dict[int, Frames]]:
        """Decode the GOPs of these ``numbers`` in lockstep."""
        order = sorted(numbers, key=lambda i: -gops[i].frames)
        state: GopState | None = None
        for latents in self._latents([gops[i] for i in order]):
            live = len(latents.digests)
            state = _first(state, live) if state else None
            with self._autocast():
                feature = self._net.inter.extract(state.buffer.feature) if state else None
                diffusion = state.diffusion if state else None
                state = self._advance(latents, state, feature)
                picture, diffusion = self._net.generator(state.buffer, diffusion)
            state = GopState(state.buffer, state.prior, diffusion)
            pixels = self._download(picture, gops[order[0]])
            yield {order[k]: pixels[k] for k in range(live)}

    def _latents(self, gops: Sequence[EncodedGop]) -> Iterator[DecodedLatents]:
        """Read GOPs of one coded size, longest first, in lockstep: by frame index, of those that have not ended."""
        height, width = gops[0].coded_size
        rows, cols = padded_side(height) // 16, padded_side(width) // 16
        work = [_Reading(gop) for gop in gops]
        carried: Tensor | None = None
        for t in range(gops[0].frames):
            live = sum(gop.frames > t for gop in gops)
            quality = torch.tensor([gop.table_row for gop in gops[:live]], device=self.device)
            _, prior = self._kind(t)
            coder, streams = self._coders[prior_name(t)], [w.stream(t) for w in work[:live]]
            state = None if carried is None else carried[:live]
            latents = decode_frame(prior, coder, streams, (rows, cols), quality, state, self.device)
            for w, digest in zip(work, latents.digests, strict=False):
                w.check(t, digest)
            carried = latents.state
            yield latents

    def _each(self, function: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
        """Apply ``function`` to each item: in turn in lockstep, else every call on a core of its own."""
        return list(map(function, items) if self.lockstep else self._lanes.map(function, items))

    def _kind(self, t: int) -> tuple[IntraTransform | InterTransform, Prior]:
        if t == 0:
            return self._net.intra, self._net.intra_prior
        return self._net.inter, self._net.inter_prior

    def _advance(self, latents: DecodedLatents, state: GopState | None, feature: Tensor | None) -> GopState:
        with self._autocast():
            if state is None or feature is None:
                return GopState(self._net.intra.synthesis(latents.values), latents.state)
            buffer, _ = self._net.inter.synthesis(latents.values, state.buffer, feature)
            return GopState(buffer, latents.state)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._half)

    def _upload(self, frames: list[Frames]) -> Tensor:
        batch = torch.from_numpy(np.stack(frames)).to(self.device).permute(0, 3, 1, 2)
        return batch.float() / 127.5 - 1

    def _download(self, picture: Tensor, gop: EncodedGop) -> Frames:
        h, w = gop.coded_size
        x = sharpened(picture[:, :, :h, :w].float(), self._net.config.sharpen)
        x = resized(x, gop.height, gop.width)
        pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        frames: Frames = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return frames


class _Writing:
    """One GOP being written."""

    def __init__(self, frames: Frames, q: float, scale: int) -> None:
        self.frames, self.scale = frames, scale
        self.q, self.fine = divmod(round(q * QUARTERS), QUARTERS)
        self.table_row = self.q - SCALES[scale].coarser + QUALITIES * self.fine
        self._intra, self._inter = StreamWriter(), StreamWriter()
        self._sum, self._checks = Checksum(scale), bytearray()

    def add(self, t: int, blocks: list[Block], digest: int, coder: Coder) -> None:
        stream = self._inter if t else self._intra
        for symbols, rows in blocks:
            stream.put(symbols, rows, coder)
        self._sum.add(digest)
        self._checks.append(self._sum.low_byte)

    def finish(self) -> EncodedGop:
        frames, height, width, _ = self.frames.shape
        intra, inter = self._intra.finish(), self._inter.finish()
        checks = bytes(self._checks)
        return EncodedGop(width, height, frames, self.q, intra, inter, checks, self._sum.value, self.scale, self.fine)


class _Reading:
    """One GOP being read."""

    def __init__(self, gop: EncodedGop) -> None:
        self.gop = gop
        self._intra = StreamReader(gop.intra)
        self._inter = StreamReader(gop.inter)
        self._sum = Checksum(gop.scale)

    def stream(self, t: int) -> StreamReader:
        return self._inter if t else self._intra

    def check(self, t: int, digest: int) -> None:
        self._sum.add(digest)
        last = t == self.gop.frames - 1
        if self._sum.low_byte != self.gop.checks[t] or (last and self._sum.value != self.gop.symbol_crc):
            raise SymbolMismatch(
                f"symbols of frame {t} do not match their checksum: damaged payload, or written with other weights"
            )


def prior_name(t: int) -> str:
    """Which prior codes frame ``t`` of a GOP."""
    return "inter" if t else "intra"


def load_model(
    model: str | Path = "small", device: str = "auto", *, enlarge: bool = True, refine: int = 0
) -> S2vcCodec:
    """Load a codec.

    Args:
        model: a packaged preset (``small``) or a directory with weights.
        device: ``auto`` (a GPU when there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        enlarge: code small pictures larger than they are where the weights gain by it; see `picture_scale`.
        refine: steps, 0..64, by which the latents of a GOP's first picture are improved; see `refine`.

    Raises:
        WeightsError: no such model, damaged, or not provably exact.
        MetricWeightsMissing: ``refine`` needs LPIPS' weights, and they were never fetched.
        ModelError: the device is not there, or ``refine`` is out of range.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device!r} was asked for, but torch sees no GPU; use 'auto' or 'cpu'")
    return S2vcCodec(load_weights(model), torch.device(device), enlarge=enlarge, refine=refine)


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_sizes(gops: Sequence[EncodedGop]) -> None:
    if any((g.height, g.width) != (gops[0].height, gops[0].width) for g in gops):
        raise ModelError("GOPs of one call must have one frame size")


def _check_frames(gops: Sequence[Frames], qualities: Sequence[float]) -> None:
    for q in qualities:
        if not 0 <= q <= QUALITIES - 1 or q * QUARTERS % 1:
            raise ModelError(f"quality {q} is not in 0..{QUALITIES - 1}, in steps of {1 / QUARTERS}")
    if not gops:
        raise ModelError("no GOP to encode")
    if len(qualities) != len(gops):
        raise ModelError(f"{len(qualities)} qualities for {len(gops)} GOPs: give one for all, or one each")
    for frames in gops:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ModelError(
                f"a GOP must be uint8 (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape}"
            )
        if frames.shape[1:] != gops[0].shape[1:]:
            raise ModelError("GOPs of one call must have one frame size")
        if max(frames.shape[1:3]) > MAX_SIDE:
            raise ModelError(f"frames larger than {MAX_SIDE} pixels a side cannot be coded")


def _first(state: GopState, live: int) -> GopState:
    """The state of the first ``live`` GOPs: shorter ones have ended."""
    if state.prior.shape[0] == live:
        return state
    b, d = state.buffer, state.diffusion
    cut = None
    if d is not None:
        cut = DiffusionBuffer(tuple(f[:live] for f in d.features), d.picture[:live])
    return GopState(FeatureBuffer(b.feature[:live], b.picture[:live], b.flow[:live]), state.prior[:live], cut)
