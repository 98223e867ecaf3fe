"""A header's JSON in fewer bytes: what every header says stands as one byte, and a digest as its 32.

JSON of ASCII leaves half of all bytes free. Those from 80 stand for the phrases of a table that is part of the format,
and FF for a digest of 64 hex digits, whose bytes follow. Equal text gives equal bytes on every machine, which a
general compressor, of which there are many implementations, does not promise.
"""

from __future__ import annotations

import re

PHRASES: tuple[bytes, ...] = (
    # Keys, in the order that canonical JSON has them, each with what ends the value before and begins its own.
    b'{"archive_version":', b',"average_rate":', b'{"average_rate":[', b'],"colour":{"matrix":', b',"primaries":',
    b',"range":', b',"transfer":', b'},"creator":"s2vc-ray ', b'","decisions":[', b'],"decisions":[',
    b'],"deinterlace":true', b',"durations":[[', b'],"frames":', b',"gop_length":', b',"height":',
    b',"last_duration":', b',"model_id":"', b',"own_size":true', b',"policy":"{', b'","preset":"', b',"q":',
    b',"refine":', b',"replaces":"', b'","revision":"', b',"rotation":', b',"sample_aspect":[',
    b'],"shots":true', b',"source_bit_depth":', b'],"source_bit_depth":', b',"source_codec":"',
    b'","source_container":"', b'","source_name":"', b'","source_pix_fmt":"', b'","source_sha256":"',
    b'","source_size":', b',"source_stream":', b',"tags":{"content_light":', b',"display_matrix":',
    b',"field_order":"', b'","mastering_display":', b'},"target":"', b'","time_base":[', b'},"time_base":[',
    b'],"weights_sha256":"', b'","width":',
    # Runs of them whose values are mostly these.
    b'{"matrix":1,"primaries":1,"range":1,"transfer":1},"creator":"s2vc-ray ',
    b'{"matrix":2,"primaries":2,"range":0,"transfer":2},"creator":"s2vc-ray ',
    b'{"matrix":2,"primaries":2,"range":1,"transfer":2},"creator":"s2vc-ray ',
    b'],"colour":', b'0.1.0","decisions":[],"frames":', b'small-', b'","preset":"small","q":',
    b',"rotation":0,"sample_aspect":[0,1],"shots":true,"source_bit_depth":8,"source_codec":"',
    b',"rotation":0,"sample_aspect":[1,1],"shots":true,"source_bit_depth":8,"source_codec":"',
    b',"rotation":0,"sample_aspect":[0,1],"source_bit_depth":8,"source_codec":"',
    b',"rotation":0,"sample_aspect":[1,1],"source_bit_depth":8,"source_codec":"',
    b'h264', b'hevc', b'av1', b'mpeg2video', b'mpeg4', b'vp9', b'vp8', b'ffv1', b'prores', b'dnxhd', b'mjpeg',
    b'","source_container":"mov,mp4,m4a,3gp,3g2,mj2","source_name":"',
    b'","source_container":"matroska,webm","source_name":"', b'","source_container":"avi","source_name":"',
    b'","source_container":"mpegts","source_name":"', b'.mp4', b'.mkv', b'.mov', b'.avi',
    b'","source_pix_fmt":"yuv420p","source_sha256":"', b'yuv', b'420p', b'422p', b'444p', b'10le',
    b',"source_stream":0,"tags":{"content_light":null,"display_matrix":null,"field_order":"progressive",'
    b'"mastering_display":null},"t',
    b',"source_stream":0,"tags":{"content_light":null,"display_matrix":null,"field_order":"unknown",'
    b'"mastering_display":null},"t',
    b'arget":"', b'ime_base":[', b'lpips_alex:worst=', b' of=sample:4', b' fallback=av1', b'null', b'progressive',
    b'1,90000', b'1,1000', b'1,12800', b'1,15360', b'1,12288', b'1,16000', b'1,30000', b'1,60000', b'1,25',
    b'24,1', b'25,1', b'30,1', b'50,1', b'60,1', b'24000,1001', b'30000,1001', b'60000,1001',
    b'1920,"height":1080', b'-bit samples (', b') rounded to 8 bits', b'interlaced pictures (',
    b') deinterlaced by FFmpeg\'s bwdif', b' frames that end before the next one begins are shown until then',
)  # fmt: skip
"""Byte 80 stands for the first. Part of format version 2: never changed, only added to by a later version."""
_FIRST = 0x80
_DIGEST = 0xFF
_BYTE_OF = {phrase: bytes([_FIRST + i]) for i, phrase in enumerate(PHRASES)}
_FOLDABLE = re.compile(
    b"|".join([rb'(?<=")[0-9a-f]{64}(?=")', *map(re.escape, sorted(PHRASES, key=len, reverse=True))])
)
_FOLDED = re.compile(rb"\xff(?s:.{32})|[\x80-\xff]")


def fold(text: bytes) -> bytes:
    """ASCII text in fewer bytes, never more: at each place the longest phrase that begins there is taken."""

    def short(found: re.Match[bytes]) -> bytes:
        known = _BYTE_OF.get(found[0])
        return known if known else bytes([_DIGEST]) + bytes.fromhex(found[0].decode("ascii"))

    return _FOLDABLE.sub(short, text)


def unfold(data: bytes, most: int) -> bytes:
    """Inverse of :func:`fold`.

    Raises:
        ValueError: more than ``most`` bytes, a byte that stands for nothing, or a digest that is cut off.
    """
    parts: list[bytes] = []
    size = at = 0
    for found in _FOLDED.finditer(data):
        parts += [data[at : found.start()], _long(found[0])]
        size, at = size + len(parts[-2]) + len(parts[-1]), found.end()
        if size > most:
            break
    parts.append(data[at:])
    if size + len(parts[-1]) > most:
        raise ValueError(f"more than {most} bytes when unfolded")
    return b"".join(parts)


def _long(folded: bytes) -> bytes:
    if len(folded) > 1:
        return folded[1:].hex().encode("ascii")
    place = folded[0] - _FIRST
    if place >= len(PHRASES):
        raise ValueError(f"byte {folded[0]:02X} stands for nothing here")
    return PHRASES[place]
