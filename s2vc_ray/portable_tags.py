"""Which of a source's tags are written into another file, and under which names.

Left out is only what a file says of itself, and what the source says of pictures that were coded anew. It knows
names and no media files.
"""

from __future__ import annotations

from s2vc_ray.passthrough_head import PassHead, PassStream

_OF_THE_FILE = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
_OF_THE_TRACK = frozenset({"duration"})
_OF_THE_CODED_PICTURES = ("encoder", "bps", "duration", "number_of_frames", "number_of_bytes", "_statistics_")

_IN_ITUNES_FORM = frozenset(
    {
        *(
            "title",
            "artist",
            "album_artist",
            "composer",
            "album",
            "date",
            "encoding_tool",
            "comment",
            "genre",
        ),
        *("copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network"),
        *("keywords", "episode_sort", "season_number", "media_type", "hd_video", "gapless_playback"),
        *("compilation", "track", "disc", "creation_time", "location", "timecode"),
    }
)
"""Tags of the container for which FFmpeg's MP4 muxer has a place of their own."""


def container_tags(head: PassHead, container: str) -> dict[str, str]:
    """The container's tags to write into a ``container`` (FFmpeg's name)."""
    tags = {
        key: text for key, text in head.metadata.items() if key.lower().partition("-")[0] not in _OF_THE_FILE
    }
    return tags if container == "matroska" else _without_languages(tags)


def stream_tags(stream: PassStream) -> dict[str, str]:
    """The tags of a carried stream, whose packets are the source's own."""
    return _titled({key: text for key, text in stream.metadata.items() if key.lower() not in _OF_THE_TRACK})


def video_tags(head: PassHead) -> dict[str, str]:
    """The tags of the compressed stream but those that describe its former coding."""
    return _titled(
        {
            key: text
            for key, text in head.video_metadata.items()
            if not key.lower().startswith(_OF_THE_CODED_PICTURES)
        }
    )


def _titled(tags: dict[str, str]) -> dict[str, str]:
    """MP4 calls a track's title its name; FFmpeg reads it so, and writes it from the title."""
    if "name" in tags and "title" not in tags:
        tags["title"] = tags.pop("name")
    return tags


def _without_languages(tags: dict[str, str]) -> dict[str, str]:
    """MP4 tags of a language are read twice, with the language behind their name and without."""
    return {key: text for key, text in tags.items() if tags.get(key.rpartition("-")[0]) != text}


def free_form(head: PassHead) -> bool:
    """Whether MP4 must name tags freely to keep them all, which its form for cover art excludes."""
    covers = any(stream.kind == "video" for stream in head.streams)
    return not covers and any(key.lower() not in _IN_ITUNES_FORM for key in container_tags(head, "mp4"))


def printable(text: str) -> str:
    """``text`` of a source for a person's terminal: what is not UTF-8, or would steer the terminal, is replaced."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
