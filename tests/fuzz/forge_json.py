"""JSON whose values are other than a program would write, in a text that parses or nearly does."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

TEXTS = (
    "",
    "A" * 5000,
    "../../outside",
    "/tmp/outside",
    "..\\outside",
    "a\0b",
    "\udc80",
    "\ud800",
    "nut",
    "mov",
    "hls",
    "audio",
    "video",
    "subtitle",
    "data",
    "aac",
    "interlaced",
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    255,
    256,
    65535,
    65536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 62,
    -(1 << 62),
    (1 << 63) - 1,
    -(1 << 63),
    1 << 64,
    1 << 4000,
    0.5,
    1e308,
)
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"a": 1}, [1, 0], [0, 1], [1, 1 << 40])


def forged_json(value: Any, rng: random.Random) -> bytes:
    """``value`` as JSON after one to three changes of its values, keys or text."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.randint(1, 3)):
        _change(value, rng)
    text = json.dumps(value, separators=(",", ":"))
    match rng.randrange(30):
        case 0:
            text = text.replace('{"', '{"' + next(iter(value), "x") + '":1,"', 1)
        case 1:
            text = "[" * 50_000
        case 2:
            text = text[: rng.randrange(len(text) + 1)]
        case 3:
            text = text.replace("1", "NaN", 1)
        case 4:
            text = "[" + text + "]"
    return text.encode("utf-8", "surrogatepass")


def _change(value: Any, rng: random.Random) -> None:
    """Change one thing somewhere in an object or list, in place."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(value[key], dict | list) or not value[key] or rng.random() < 0.2:
            break
        value = value[key]
    match rng.randrange(10):
        case 0:
            del value[key]
        case 1 if isinstance(value, list):
            value.extend([value[key]] * rng.choice((1, 40, 2000)))
        case 2 if isinstance(value, dict):
            value[rng.choice(TEXTS)] = value.pop(key)
        case 3:
            value[key] = deepcopy(
                rng.choice(_OTHERS)
            )  # a later change must reach neither the table nor itself
        case _ if isinstance(value[key], str):
            value[key] = rng.choice(TEXTS)
        case _ if isinstance(value[key], list) and len(value[key]) == 2:
            value[key] = [rng.choice(NUMBERS), rng.choice(NUMBERS)]
        case _:
            value[key] = rng.choice(NUMBERS)
