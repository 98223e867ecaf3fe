"""The processes that train one network together, as torchrun starts them; one process alone exchanges nothing.

Every rank holds the whole network and draws its own crops. Gradients are averaged between backward and clipping, so
all ranks take the same update and stay the same, moving average and learning rate included. Rank 0 decides what
depends on the clock. Knows torch.distributed; knows nothing of stages and losses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from s2vc_model.errors import TrainingError

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others before it gives up: longer than their starts and loads lie apart."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among ``size``. Every rank must make the same calls in the same order, but for :meth:`seed`.

    Raises:
        TrainingError: from any exchange, when another rank has ended or is not heard from within the patience.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and speaks."""
        return self.rank == 0

    def seed(self, seed: int, step: int, *, shared: bool = False) -> None:
        """Start the random numbers of a step: the same on all ranks if ``shared``, else this rank's own.

        They follow from seed, step and rank alone. One process keeps its one sequence, begun by its seed.
        """
        if self.size == 1:
            return
        key = (step, 0 if shared else self.rank + 1)
        (state,) = np.random.SeedSequence(seed % 2**64, spawn_key=key).generate_state(1, np.uint64)
        torch.manual_seed(int(state))

    def spread(self, net: nn.Module) -> None:
        """Give every rank the first one's tensors. The network is still on the CPU."""
        if self.size > 1:
            with self._exchange():
                for value in net.state_dict().values():
                    dist.broadcast(value, 0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over ranks, in one exchange. All have one dtype."""
        if self.size == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        with self._exchange():
            dist.all_reduce(flat)
        flat /= self.size
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def gather(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors of one shape (N, ...) as one (size * N, ...), in order of rank."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._exchange():
            dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def from_first(self, value: float) -> float:
        """What the first rank says."""
        if self.size == 1:
            return value
        said = torch.tensor(value, dtype=torch.float64)
        with self._exchange():
            dist.broadcast(said, 0)
        return float(said)

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise TrainingError(
                f"rank {self.rank} of {self.size} lost the others: one has ended, or was not heard from in time. "
                "Look for that rank's own error, then start all of them again from the last checkpoint"
            ) from error


def join(device: str, patience: timedelta = PATIENCE) -> tuple[Ranks, torch.device]:
    """Find the other ranks, by torchrun's environment variables; without them this process is alone.

    Args:
        device: with several ranks ``cuda`` means each rank's own GPU of its node.

    Returns:
        The ranks, and this one's device.

    Raises:
        TrainingError: fewer GPUs than ranks on this node, or not all ranks came.
    """
    mine = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks(), mine
    cuda = mine.type == "cuda"
    if cuda:
        local, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= found:
            raise TrainingError(
                f"rank {local} of this node has no GPU: {found} found; lower --nproc-per-node"
            )
        mine = torch.device("cuda", local)
        torch.cuda.set_device(mine)
    try:
        # What lies on the CPU, such as the clock, goes through gloo and never waits for the GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=patience)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"not all ranks came together: {error}") from error
    return Ranks(dist.get_rank(), dist.get_world_size()), mine


def leave() -> None:
    """Part from the other ranks, when all have taken their last step."""
    if dist.is_initialized():
        dist.destroy_process_group()
