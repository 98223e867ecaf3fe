"""What a size asked for leaves to each pixel: an archive's bytes less all that is not coded pictures.

Every GOP of a video gets the same bits per pixel, so that none waits for another; an archive whose GOPs all keep to it
is no larger than was asked for. Reads a source's packets to know what its other streams take.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from s2vc_ray.archive import format as fmt
from s2vc_ray.archive.format import GopRecord
from s2vc_ray.config import JobConfig
from s2vc_ray.decisions import decisions
from s2vc_ray.errors import ConfigError
from s2vc_ray.passthrough import extract
from s2vc_ray.sources import open_media
from s2vc_ray.targets import Budget
from s2vc_ray.values import GopSpec, VideoInfo

_HEADER = 1280
"""More than a folded header's keys and numbers take; its texts are counted apart."""
_INDEX_ENTRY = 32
"""More than an entry of the index takes."""
_LONGEST_CODEC = "s2vc-shots"


def bits_per_pixel(
    config: JobConfig, info: VideoInfo, specs: Iterable[GopSpec], *, uri: str, source_bytes: int
) -> float | None:
    """The most payload bits per true pixel for each GOP of a video; None where the job asks for no size.

    Raises:
        ConfigError: there is no room for any picture.
        SourceError: the source's other streams cannot be read.
    """
    target = config.target
    limit = target.archive_bytes(source_bytes) if isinstance(target, Budget) else None
    if limit is None:
        return None
    taken = _bookkeeping(info, specs, uri)
    if config.passthrough:
        taken += _passthrough(uri)
    if limit <= taken:
        raise ConfigError(
            f"{uri}: an archive of {limit} bytes (target {target}) has no room for pictures: sound, subtitles, tags "
            f"and its own bookkeeping take up to {taken}; ask for more, or give --no-passthrough"
        )
    return 8 * (limit - taken) / (info.width * info.height * info.frames)


def _bookkeeping(info: VideoInfo, specs: Iterable[GopSpec], uri: str) -> int:
    """Bytes of header, GOP records without payload, index and trailer, rounded up."""
    texts = [uri.rpartition("/")[2], *decisions(info)]
    header = fmt.PROLOGUE.size + _HEADER + sum(len(json.dumps(text)) for text in texts)
    records = [
        GopRecord(spec.index, spec.first_frame, 63, tuple(spec.pts), b"", _LONGEST_CODEC) for spec in specs
    ]
    gops = sum(fmt.BLOCK_HEAD.size + len(fmt.pack_gop(record)) + _INDEX_ENTRY for record in records)
    return header + gops + fmt.BLOCK_HEAD.size + fmt.TRAILER.size


def _passthrough(uri: str) -> int:
    """Bytes of the blocks that hold everything else of the source."""
    with open_media(uri) as media:
        size = sum(len(chunk) for chunk in extract(media, uri=uri).chunks())
    return size + -(-size // fmt.CHUNK_BYTES) * (fmt.BLOCK_HEAD.size + fmt.CHUNK_HEAD.size)
