"""GOPs of whatever codec: from a record to a coded GOP, and from there to symbols that hold and pictures.

The one place that knows which codecs there are. A further one is a payload with the attributes that those here
share, and a line in each function below that names them. Reaches torch only through the codec it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from s2vc_model.bitstream import EncodedGop
from s2vc_ray.av1_gop import Av1Gop
from s2vc_ray.errors import ArchiveError, CorruptArchive, WrongWeights
from s2vc_ray.fallback import check_av1, iter_decode_av1
from s2vc_ray.shots import ShotsGop
from s2vc_ray.values import GopCodec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from s2vc_ray.archive import ArchiveHeader, GopRecord

    Picture = npt.NDArray[np.uint8]

AnyGop = EncodedGop | ShotsGop | Av1Gop
"""A coded GOP: all have ``width``, ``height``, ``frames``, ``q``, ``fine``, ``scale``, ``bits_i``, ``bits_p``,
``to_payload``."""
S2VC, SHOTS, AV1 = "s2vc", "s2vc-shots", "av1"
_PAYLOADS: Mapping[str, Callable[[bytes], AnyGop]] = {
    S2VC: EncodedGop.from_payload,
    SHOTS: ShotsGop.from_payload,
    AV1: Av1Gop.from_payload,
}


def codec_name(gop: AnyGop) -> str:
    """What records call the codec of a GOP."""
    if isinstance(gop, Av1Gop):
        return AV1
    return SHOTS if isinstance(gop, ShotsGop) else S2VC


def reread(gop: AnyGop) -> AnyGop:
    """What a reader will find in the payload of ``gop``."""
    return from_payload(codec_name(gop), gop.to_payload())


def from_payload(codec: str, payload: bytes) -> AnyGop:
    """What the payload of a record of ``codec`` holds.

    Raises:
        KeyError: there is no such codec.
        BitstreamError: the payload is not a whole one of it.
    """
    return _PAYLOADS[codec](payload)


def coded_gop(record: GopRecord, header: ArchiveHeader) -> AnyGop:
    """A record's payload as what its codec decodes.

    Raises:
        ArchiveError: coded by a codec that this version does not know.
        BitstreamError: the payload is not a whole one of its codec.
        CorruptArchive: it is not what its record and the header say.
    """
    if record.codec not in _PAYLOADS:
        raise ArchiveError(
            f"GOP {record.index} is coded by {record.codec!r}, which this version cannot decode"
        )
    gop = from_payload(record.codec, record.payload)
    if (gop.width, gop.height, gop.frames) != (header.width, header.height, record.frames):
        raise CorruptArchive(
            f"GOP {record.index}: its payload holds {gop.frames} frames of {gop.width}x{gop.height}, "
            f"its record {record.frames} of {header.width}x{header.height}"
        )
    return gop


def iter_decode(codec: GopCodec, gops: Sequence[AnyGop]) -> Iterator[dict[int, Picture]]:
    """`GopCodec.iter_decode` for GOPs of any codec: ``codec`` decodes those that are its own.

    Raises:
        ModelError: a GOP does not decode to the symbols, or planes, that were coded.
    """
    ours = {number: gop for number, gop in enumerate(gops) if isinstance(gop, EncodedGop)}
    sides = [_renumbered(codec.iter_decode(list(ours.values())), list(ours))] if ours else []
    for number, gop in enumerate(gops):
        if isinstance(gop, ShotsGop):
            sides.append(_numbered(number, _pictures(codec, gop)))
        elif isinstance(gop, Av1Gop):
            sides.append(_numbered(number, iter_decode_av1(gop)))
    for parts in zip_longest(*sides, fillvalue={}):
        yield {number: picture for part in parts for number, picture in part.items()}


def check_symbols(codec: GopCodec, gops: Sequence[AnyGop]) -> None:
    """`GopCodec.check_symbols` for GOPs of any codec; of AV1 it is the planes that are decoded and compared.

    Raises:
        ModelError: a GOP's symbols, or planes, are not those that were coded.
    """
    ours = [gop for gop in gops if isinstance(gop, EncodedGop)]
    ours += [shot for gop in gops if isinstance(gop, ShotsGop) for shot in gop.shots]
    if ours:
        codec.check_symbols(ours)
    for gop in gops:
        if isinstance(gop, Av1Gop):
            check_av1(gop)


def check_weights(header: ArchiveHeader, codec: GopCodec, archive: str) -> None:
    """Refuse a codec that did not code the archive and does not read the streams of the one that did.

    Raises:
        WrongWeights: the message names both.
    """
    if header.weights_sha256 not in (codec.weights_sha256, *codec.reads):
        raise WrongWeights(
            f"{archive} was coded by model {header.model_id!r} (preset {header.preset}, weights "
            f"{header.weights_sha256[:16]}); model {codec.model_id!r} has {codec.weights_sha256[:16]}: "
            "give the directory of the right ones with --model"
        )


def told_of_weights(header: ArchiveHeader, codec: GopCodec) -> list[str]:
    """What is to be said of pictures that other weights decode than coded them: a sentence, or none."""
    if header.weights_sha256 == codec.weights_sha256:
        return []
    return [
        f"coded by {header.model_id} and decoded by {codec.model_id}, which reads its streams: these may not be the "
        "pictures that were measured when it was compressed"
    ]


def _renumbered(decoded: Iterable[dict[int, Picture]], numbers: list[int]) -> Iterator[dict[int, Picture]]:
    for pictures in decoded:
        yield {numbers[number]: picture for number, picture in pictures.items()}


def _pictures(codec: GopCodec, gop: ShotsGop) -> Iterator[Picture]:
    """One shot after the other, so that a GOP of many takes no more memory than another."""
    for shot in gop.shots:
        for (picture,) in (pictures.values() for pictures in codec.iter_decode([shot])):
            yield picture


def _numbered(number: int, pictures: Iterable[Picture]) -> Iterator[dict[int, Picture]]:
    for picture in pictures:
        yield {number: picture}
