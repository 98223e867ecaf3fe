"""Compress video archives with S2VC, and read the archives: `open_archive`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2vc_ray.access import open_archive

__all__ = ["open_archive"]


def __getattr__(name: str) -> Any:
    """Import on first use: every module of the package passes through here, most need none of it."""
    if name == "open_archive":
        from s2vc_ray.access import open_archive

        return open_archive
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
