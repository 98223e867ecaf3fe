"""Counts the bytes that tensors hold, at their peak, on any device: also on ``meta``, where nothing is computed.

Workspaces inside a kernel are not seen, and attention counts as one kernel, as it is on a GPU. Nothing here is a test.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside, ``now`` and ``peak`` follow what operations have made and nobody has dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given and storage._cdata not in self._seen:
                    self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        size, key = storage.nbytes(), storage._cdata
        self.now += size
        self.peak = max(self.peak, self.now)
        self._seen.add(key)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@contextmanager
def live_bytes() -> Iterator[LiveBytes]:
    """What is made inside; no gradients."""
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), LiveBytes() as live:
        patch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, *_, **__: torch.zeros_like(q))
        yield live
