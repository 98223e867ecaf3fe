"""One optimiser step over static buffers, captured as a CUDA graph where one process trains on a GPU.

The whole step (forward, backward, clipping, AdamW) is one graph, so Python costs nothing per step. What varies from
step to step (frames, qualities, rate ramp, learning rate) lives in tensors the graph reads. Several ranks exchange
gradients in the middle of the step, so they run it eagerly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from s2vc_model.config import QUALITIES
from s2vc_model.network import S2vcNetwork
from s2vc_model.pictures import resized, sharpened
from s2vc_model.state import DiffusionBuffer, FeatureBuffer, GopState
from s2vc_model.train.companions import Companions
from s2vc_model.train.data import ENLARGING, Batch
from s2vc_model.train.finish import analysis_step, finish_step
from s2vc_model.train.losses import Perceptual, motion_loss, rate_weights
from s2vc_model.train.ranks import Ranks
from s2vc_model.train.rate import detached, inter_step, intra_step, uncoded_step
from s2vc_model.train.recipe import Stage, Weights

EAGER_STEPS = 3
"""Steps run eagerly before capture, so that lazily made buffers exist."""


class Dials:
    """The scalars a captured step reads: rate ramp, perceptual and motion weights, learning rate."""

    def __init__(self, device: torch.device, lr: float) -> None:
        self.rate = torch.tensor(0.0, device=device)
        self.perceptual = torch.tensor(0.0, device=device)
        self.motion = torch.tensor(0.0, device=device)
        self.lr = torch.tensor(lr, device=device)


class Optimiser:
    """AdamW with a tensor learning rate, gradient clipping, and steps skipped when a gradient is not finite.

    Gradients are averaged over ranks before clipping, so what one rank skips all skip.

    Args:
        more: parameters beside the network's.
    """

    def __init__(
        self, net: nn.Module, dials: Dials, ranks: Ranks | None = None, more: Sequence[nn.Parameter] = ()
    ) -> None:
        self.ranks = ranks or Ranks()
        self.params = [p for p in (*net.parameters(), *more) if p.requires_grad]
        device = self.params[0].device
        cuda = device.type == "cuda"
        self.dials = dials
        self.adam = torch.optim.AdamW(
            self.params, lr=dials.lr, weight_decay=0.01, betas=(0.9, 0.99), fused=True, capturable=cuda
        )
        self.skip = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)
        self.adam.found_inf = self.skip  # type: ignore[attr-defined]

    def zero(self) -> None:
        """Forget gradients."""
        self.adam.zero_grad(set_to_none=True)

    def step(self, loss: Tensor) -> Tensor:
        """Backward, average over ranks, clip to norm 1, update; returns the norm before clipping."""
        loss.backward()
        self.ranks.average([p.grad for p in self.params if p.grad is not None])
        norm = nn.utils.clip_grad_norm_(self.params, 1.0, foreach=True)
        self.skip.copy_((~torch.isfinite(norm)).float())
        self.skipped.add_(self.skip)
        self.adam.step()
        return norm.detach()


class ChunkStep:
    """Trains on one chunk of a stream.

    Args:
        stage: shapes. ``frames == 1`` trains the intra path and the generator.
        perceptual: the shared LPIPS module.
        companions: what else the stage asks for.
        half: whether networks compute in bf16; None: on a GPU.
    """

    def __init__(
        self,
        stage: Stage,
        weights: Weights,
        net: S2vcNetwork,
        opt: Optimiser,
        perceptual: Perceptual,
        companions: Companions | None = None,
        half: bool | None = None,
    ) -> None:
        self.companions = companions or Companions()
        self.stage, self.weights, self.net, self.opt, self.perceptual = stage, weights, net, opt, perceptual
        device = opt.params[0].device
        self.cuda = device.type == "cuda"
        self.half = self.cuda if half is None else half
        # A step of one part alone lists symbols on the CPU; the adversary's optimiser is not made for graphs.
        eager = stage.alone or stage.adversarial > 0
        self.captured = self.cuda and opt.ranks.size == 1 and not eager
        b, t, s = stage.batch, stage.frames, stage.size

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, device=device)

        layout = torch.channels_last
        self.x = [zeros(b, 3, s, s).contiguous(memory_format=layout) for _ in range(t)]
        self.motion, self.trust = zeros(b, t, 2, s // 16, s // 16), zeros(b, t, 1, s // 16, s // 16)
        self.q = torch.zeros(b, dtype=torch.long, device=device)
        self.seen = torch.zeros(math.ceil(b * stage.perceptual_share), dtype=torch.long, device=device)
        crop = stage.perceptual_crop or s
        self.rows, self.columns = (torch.arange(crop, device=device) for _ in range(2))
        self.lambdas = rate_weights(device)
        self.closeness = stage.l1 * torch.logspace(math.log10(stage.l1_low), 0, QUALITIES, device=device)
        self.alex = Perceptual(device, "alex", half) if stage.alex else None
        self.enlarged = False
        self.state: GopState | None = None
        self.runs: dict[tuple[bool, bool, bool], int] = {}
        self.graphs: dict[tuple[bool, bool, bool], torch.cuda.CUDAGraph] = {}
        self.results: dict[tuple[bool, bool, bool], dict[str, Tensor]] = {}

    def load(self, batch: Batch, chunk: int) -> None:
        """Copy chunk ``chunk`` of a stream into the static buffers and draw what LPIPS sees of it."""
        t = self.stage.frames
        part = slice(chunk * t, (chunk + 1) * t)
        for buffer, frame in zip(self.x, batch.frames[:, part].unbind(1), strict=True):
            buffer.copy_(frame)
        self.motion.copy_(batch.motion[:, part])
        self.trust.copy_(batch.trust[:, part])
        self.enlarged = batch.enlarged
        rows = torch.randperm(self.stage.batch, device=self.q.device)[: self.seen.numel()]
        self.seen.copy_(rows * t + torch.randint(0, t, rows.shape, device=rows.device))
        side = self.rows.numel()
        if side < self.stage.size:
            for places in (self.rows, self.columns):
                tile = torch.randint(0, self.stage.size // side, (), device=places.device)
                places.copy_(torch.arange(side, device=places.device) + tile * side)

    def __call__(self, first: bool, perceptual: bool) -> dict[str, Tensor]:
        """Train on the loaded chunk; ``first`` starts a GOP. Returns detached tensors, valid until the next call."""
        key = (first, perceptual, self.enlarged)
        self.runs[key] = self.runs.get(key, 0) + 1
        if not self.captured or self.runs[key] <= EAGER_STEPS:
            return self._train(first, perceptual)
        if key not in self.graphs:
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            self.opt.zero()
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                self.results[key] = self._train(first, perceptual)
            self.graphs[key] = graph
        self.graphs[key].replay()
        return self.results[key]

    def _train(self, first: bool, perceptual: bool) -> dict[str, Tensor]:
        with self.autocast():
            pictures, bits, extra, state = self.forward(first)
            told = self._semantic(state) if self.stage.semantic else None
        pictures = [sharpened(picture.float(), self.net.config.sharpen) for picture in pictures]
        loss, report = self._loss(pictures, bits, first, perceptual)
        loss = loss + extra
        if told is not None:
            loss = loss + self.stage.semantic * told
            report["semantic"] = told.detach()[None]
        adversary = self.companions.adversary if self.stage.adversarial else None
        if adversary:
            loss = loss + self.stage.adversarial * adversary.deceived(torch.stack(pictures, 1).float())
        self.opt.zero()
        report["norm"] = self.opt.step(loss)
        if adversary:
            decoded, real = torch.stack(pictures, 1).detach().float(), torch.stack(self.x, 1)
            report["adversary"] = adversary.learn(decoded, real, self.opt.ranks)[None]
        if self.stage.chunks > 1:
            self._keep(state)
        return report

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        return torch.autocast("cuda" if self.cuda else "cpu", torch.bfloat16, enabled=self.half)

    def forward(self, first: bool) -> tuple[list[Tensor], list[Tensor], Tensor, GopState]:
        """The loaded chunk through the networks: pictures and bits of each frame, extra loss, the last state."""
        w, state = self.weights, self.state
        pictures, bits = list[Tensor](), list[Tensor]()
        extra = torch.zeros((), device=self.q.device)
        for t, x in enumerate(self.x):
            if self.stage.generator_only:
                start = state is None or (first and t == 0)
                picture, state = finish_step(self.net, x, self.q, None if start else state, self.motion[:, t])
                pictures.append(picture)
                bits.append(torch.zeros_like(self.q))
                continue
            if self.stage.analysis_only:
                picture, state, b = analysis_step(self.net, x, self.q)
            elif not self.stage.coded:
                picture, state, b, outside = uncoded_step(self.net, x)
                extra = extra + w.outside * outside
            elif state is None or (first and t == 0):
                picture, state, b = intra_step(self.net, x, self.q)
            else:
                motion = self.motion[:, t]
                picture, state, b, moved = inter_step(self.net, x, self.q, state, motion)
                follow = motion_loss(state.buffer.flow, motion, self.trust[:, t])
                extra = extra + self.opt.dials.motion * follow + w.moved * (moved.float() - x).abs().mean()
            extra = extra + w.light * (state.buffer.picture.float() - x).abs().mean()
            pictures.append(picture)
            bits.append(b)
        assert state is not None
        return pictures, bits, extra / len(self.x), state

    def _loss(
        self, pictures: list[Tensor], bits: list[Tensor], first: bool, perceptual: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        w = self.weights
        out, x = torch.stack(pictures, 1).float(), torch.stack(self.x, 1)
        bpp = torch.stack(bits, 1).float() / self.stage.size**2
        share = torch.ones_like(bpp)
        if first:
            share[:, 0] = w.intra_rate
        l1 = (out - x).abs().mean((2, 3, 4))
        rate = (self.lambdas[self.q][:, None] * share * bpp).mean()
        loss = w.l1 * (self.closeness[self.q][:, None] * l1).mean() + self.opt.dials.rate * rate
        if len(pictures) > 1:
            loss = loss + w.change * ((out[:, 1:] - out[:, :-1]) - (x[:, 1:] - x[:, :-1])).abs().mean()
        lpips = torch.zeros(1, device=l1.device)
        if perceptual:
            lpips = self.perceptual(self._seen_of(out), self._seen_of(x))
            loss = loss + w.perceptual * self.stage.perceptual_every * lpips.mean()
        if self.alex:
            everywhere = self._as_seen(out.flatten(0, 1)), self._as_seen(x.flatten(0, 1))
            loss = loss + self.stage.alex * self.alex(*everywhere).mean()
        return loss, {"l1": l1.detach(), "lpips": lpips.detach(), "bpp": bpp.detach(), "q": self.q}

    def _semantic(self, state: GopState) -> Tensor:
        assert self.companions.semantic is not None
        distance: Tensor = self.companions.semantic(self.net.generator.semantic(state.buffer.feature), self.x[-1])
        return distance

    def _seen_of(self, frames: Tensor) -> Tensor:
        """What LPIPS-VGG sees of frames (B, T, 3, S, S)."""
        seen = frames.flatten(0, 1).index_select(0, self.seen)
        if self.rows.numel() < self.stage.size:
            seen = seen.index_select(2, self.rows).index_select(3, self.columns)
        return self._as_seen(seen)

    def _as_seen(self, frames: Tensor) -> Tensor:
        """Frames (N, 3, S, S), those that were enlarged at the size they had."""
        if not self.enlarged:
            return frames
        side = int(frames.shape[-1] / ENLARGING)
        return resized(frames, side, side)

    @torch.no_grad()
    def _keep(self, state: GopState) -> None:
        """Store the state in fixed memory, where the next chunk's graph finds it."""
        new = detached(state)
        if self.state is None:
            self.state = _map(new, torch.clone)
            return
        for kept, value in zip(_tensors(self.state), _tensors(new), strict=True):
            kept.copy_(value)


def _tensors(state: GopState) -> list[Tensor]:
    assert state.diffusion is not None
    b, d = state.buffer, state.diffusion
    return [b.feature, b.picture, b.flow, state.prior, *d.features, d.picture]


def _map(state: GopState, fn: Callable[[Tensor], Tensor]) -> GopState:
    assert state.diffusion is not None
    b, d = state.buffer, state.diffusion
    buffer = FeatureBuffer(fn(b.feature), fn(b.picture), fn(b.flow))
    return GopState(buffer, fn(state.prior), DiffusionBuffer(tuple(map(fn, d.features)), fn(d.picture)))
