"""Secrets in the forms in which they leak."""

from __future__ import annotations

import pytest

from s2vc_ray.redact import redacted


@pytest.mark.parametrize(
    "text",
    [
        "https://me:HIDE@host/x",
        "http://HIDE@host/x",
        "GET https://b.host/k?X-Amz-Credential=HIDE&part=1",
        "GET https://b.host/k?part=1&X-Amz-Security-Token=HIDE",
        "https://host/k?sig=HIDE",
        "aws_secret_access_key = HIDE",
        "{'SecretAccessKey': 'HIDE'}",
        '{"aws_session_token":"HIDE"}',
        "password=HIDE;",
        "RAY_AUTH_TOKEN=HIDE",
        "Authorization: Bearer HIDE-me.123456",
        "AKIAHIDEHIDEHIDEHIDE",
        "api-key: HIDE",
    ],
)
def test_it_is_hidden(text: str) -> None:
    assert "HIDE" not in redacted(text)
    assert "***" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/raw/film@2.mp4: no video stream",
        "/data/a token of love.mp4: 20 frames in 3 GOPs",
        "GOP 3: TimeoutError: no answer from http://127.0.0.1:8333 in 30 s; trying again",
        "https://host/k?part=2&uploadId=abc",
    ],
)
def test_everything_else_is_left_alone(text: str) -> None:
    assert redacted(text) == text


def test_long_text_is_cut() -> None:
    assert len(redacted("x" * 100_000)) == 2000
