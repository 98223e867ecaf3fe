"""HTML pages that need nothing beside them: a template with its style, script and data inside.

Whatever comes out of a manifest or an archive is text: templates escape it, the data is JSON in which no markup can
stand, and a content security policy lets nothing but the page's own script and style work and nothing be fetched.
Control characters are escaped, since right-to-left marks change what a name seems to be. Knows no audit.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from s2vc_ray.redact import redacted
from s2vc_ray.status import shown
from s2vc_ray.words import duration, size

_DIGITS = 6
"""Significant digits of figures in the data."""


def render(
    package: str,
    name: str,
    data: object,
    values: Mapping[str, object],
    *,
    scripts: Sequence[str],
    styles: Sequence[str],
    policy: Mapping[str, str],
) -> bytes:
    """The page of a template, UTF-8.

    Args:
        package: where template, scripts and styles lie.
        name: the template's.
        data: for the script; read from the element ``data`` as JSON.
        values: for the template; texts in it are made fit to be shown.
        scripts, styles: names of files, put together in this order; ``PACKAGE:NAME`` for one of another package.
        policy: sources allowed beside the page's own script and style, such as ``{"img-src": "data:"}``.
    """
    style, script = ("\n".join(_asset(*_place(package, one)) for one in names) for names in (styles, scripts))
    rules = {
        "default-src": "'none'",
        "script-src": _digest(script),
        "style-src": _digest(style),
        "base-uri": "'none'",
        "form-action": "'none'",
        **policy,
    }
    page = (
        _environment(package)
        .get_template(name)
        .render(
            **clean(values),
            data=clean(data),
            # Ours, and without markup.
            style=Markup(style),  # noqa: S704
            script=Markup(script),  # noqa: S704
            policy="; ".join(f"{kind} {allowed}" for kind, allowed in rules.items()),
        )
    )
    return page.encode("utf-8", "backslashreplace")


def clean(value: Any) -> Any:
    """``value`` with all texts fit to be shown, floats cut to `_DIGITS` digits, and None for what is no number."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return shown(redacted(value))
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(key): clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [clean(one) for one in value]
    return value


def data_uri(jpeg: bytes) -> Markup:
    """A picture as a ``data:`` URI; too long to be looked through for secrets."""
    return Markup("data:image/jpeg;base64," + base64.b64encode(jpeg).decode())  # noqa: S704


def figure(value: float | None, name: str = "") -> str:
    """A figure of the named kind, as precise as it can be believed; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if name.startswith(("psnr", "vmaf")):
        return f"{value:.2f}"
    if name.startswith(("kbps", "ratio", "seconds", "encode", "deviations", "at")):
        return f"{value:.1f}"
    return f"{value:.4f}"


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(functools.partial(_asset, package)),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"size": size, "duration": duration, "figure": figure}
    # Keys keep the order in which tables are to be shown.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def _place(package: str, name: str) -> tuple[str, str]:
    other, _, file = name.rpartition(":")
    return other or package, file


@functools.cache
def _asset(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
