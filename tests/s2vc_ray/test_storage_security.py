"""Credentials stay where they belong, TLS is verified, and no object key writes outside its destination."""

from __future__ import annotations

import datetime
import ipaddress
import json
import logging
import os
import pickle
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from s2vc_ray.backoff import Patience
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError, StorageError
from s2vc_ray.manifest import read_manifest
from s2vc_ray.staging import STAGING
from s2vc_ray.storage import open_source, open_storage, stat_source
from s2vc_ray.storage_local import LocalStorage
from s2vc_ray.storage_s3 import S3Storage
from tests import media
from tests.fakes import load_fake
from tests.faulty_s3 import Answer, Exchange, FaultyS3, answer, cut, faulty_s3

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-K7MDENG-bPxRfiCY-secret",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEBYaDJ-session-token",
    "RAY_AUTH_TOKEN": "ray-cluster-token-0123456789",
    "SOME_PASSWORD": "correct horse battery staple",
}
BRISK = Patience(seconds=5, first=0.01, longest=0.05, connect_timeout=2, read_timeout=2)
CONFIG = JobConfig(
    model="fake",
    executor="local",
    allow_larger=True,
    gop=8,
    attempts=1,
    metrics=MetricPolicy.parse("none", ("psnr",)),
)
NASTY_KEYS = (
    "../evil",
    "a/../../evil",
    "/evil",
    "//evil",
    "..\\evil",
    "a\\..\\..\\evil",
    "C:\\evil",
    "%2e%2e/evil",
    "%2e%2e%2fevil",
    "..%2fevil",
    "..%c0%af..%c0%afevil",
    "．．/evil",
    "..／evil",
    "․․/evil",
    "‥/evil",
    "..∕evil",
    ".\u200b./evil",
    "\u202e../evil",
    "~/evil",
    "$HOME/evil",
    "file:///evil",
    "./evil",
    "a/./evil",
    "a/..",
    "evil\0.txt",
    "evil\n../../evil",
    "\ud800/evil",
    "..",
    ".",
    "",
)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_PROFILE",
        "AWS_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)


@pytest.fixture
def proxy(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    with faulty_s3(moto) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def bucket(moto: str) -> str:
    name = f"b{os.urandom(6).hex()}"
    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket=name)
    return name


def test_no_secret_reaches_a_log_a_row_an_archive_or_an_error(
    proxy: FaultyS3,
    bucket: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    raw = open_storage(f"s3://{bucket}/raw")
    clip = media.make_clip(tmp_path / "a.mp4", frames=20)
    poison = media.make_clip(tmp_path / "b.mp4", frames=13)
    letter = media.text_file(tmp_path / "letter.mp4") or tmp_path / "letter.mp4"
    for path in (clip, poison, letter):
        raw.put_file(path.name, path)
    texts: list[str] = []
    with caplog.at_level(logging.DEBUG):
        proxy.next("PUT", answer(503, "SlowDown"), cut)
        report = compress(
            [raw.uri], f"s3://{bucket}/out", replace(CONFIG, model="fake:fail=5"), load_codec=load_fake
        )
        for fault in (
            answer(403, "AccessDenied"),
            answer(403, "SignatureDoesNotMatch"),
            answer(400, "ExpiredToken"),
        ):
            proxy.always("ANY", fault)
            with pytest.raises(StorageError) as caught:
                S3Storage(bucket, patience=BRISK).read("k")
            texts += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    proxy.heal()
    assert sorted(video.status for video in report.videos) == ["failed", "failed", "ok"]
    out = open_storage(f"s3://{bucket}/out")
    keys = [found.key for found in out.list()]
    assert any(key.startswith(STAGING) for key in keys), "the video that failed leaves something staged"
    assert any(key.endswith(".s2vc") for key in keys)
    texts += [out.read(key).decode("latin-1") for key in keys]
    # Parts are compressed: their rows say what is in them.
    texts += [json.dumps(read_manifest(out).to_pylist(), default=str), repr(report)]
    texts += [record.getMessage() + str(record.exc_text) + repr(record.args) for record in caplog.records]
    texts += [*capfd.readouterr(), repr(out), repr(pickle.dumps(out))]
    assert any("SlowDown" in record.getMessage() for record in caplog.records), "the log was looked at"
    for name, secret in SECRETS.items():
        assert not [text[:200] for text in texts if secret in text], name


@pytest.mark.parametrize("call", [open_storage, open_source, stat_source])
def test_credentials_in_a_uri_are_refused_and_not_repeated(call: Callable[[str], object]) -> None:
    with pytest.raises(ConfigError, match="takes no credentials") as caught:
        call("s3://AKIAIOSFODNN7EXAMPLE:very-secret@bucket/raw/clip.mp4")
    assert "very-secret" not in str(caught.value)


def test_credentials_in_an_endpoint_are_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://user:very-secret@s3.example.com")
    with pytest.raises(ConfigError, match="endpoint's URL carries credentials") as caught:
        open_storage("s3://bucket").stat("k")
    assert "very-secret" not in str(caught.value)


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody vouches for, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def https(self_signed: tuple[Path, Path]) -> Iterator[tuple[str, list[str]]]:
    """An HTTPS server that knows no object; and the requests that got through to it."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(self.path)
            self.send_response(404 if self.path.count("/") > 1 else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"AWS_CA_BUNDLE": ""},
        {"REQUESTS_CA_BUNDLE": ""},
        {"CURL_CA_BUNDLE": ""},
        {"AWS_CA_BUNDLE": "false"},
        {"PYTHONHTTPSVERIFY": "0", "AWS_S3_VERIFY": "false", "S3_VERIFY": "0"},
    ],
)
def test_no_variable_switches_verification_off(
    https: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    endpoint, seen = https
    patient = replace(BRISK, seconds=3600)  # to no avail: a certificate does not change by itself
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=r"is not trusted|Invalid CA bundle"):
        S3Storage("bucket", endpoint_url=endpoint, patience=patient).stat("k")
    assert seen == []


def test_an_untrusted_certificate_is_named_with_its_remedy_and_the_remedy_works(
    https: tuple[str, list[str]], self_signed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, seen = https
    patient = replace(BRISK, seconds=3600)  # to no avail: a certificate does not change by itself
    with pytest.raises(StorageError, match=r"https://.* is not trusted .*AWS_CA_BUNDLE"):
        S3Storage("bucket", endpoint_url=endpoint, patience=patient).stat("k")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(self_signed[0]))
    assert S3Storage("bucket", endpoint_url=endpoint, patience=patient).stat("k") is None
    assert seen == ["/bucket/k", "/bucket"]


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            ["..", ".", "", "a", "evil", "%2e%2e", "．．", "\\", "~", "\0", "\u202e", " ", "..\\"]
        )
        | st.text(max_size=3),
        max_size=5,
    ).map("/".join)
)
@example("../evil")
def test_no_key_writes_outside_a_folder(tmp_path: Path, key: str) -> None:
    _write_and_look(tmp_path, key)


@pytest.mark.parametrize("key", NASTY_KEYS)
def test_known_tricks_do_not_write_outside_a_folder(tmp_path: Path, key: str) -> None:
    _write_and_look(tmp_path, key)


def _write_and_look(tmp_path: Path, key: str) -> None:
    inner = tmp_path / "deep" / "er" / "out"
    storage = LocalStorage(inner)
    inner.mkdir(parents=True, exist_ok=True)
    before = {path for path in tree(tmp_path) if not path.startswith("deep/er/out/")}
    for write in (storage.put, lambda key, data: storage.delete(key)):
        try:
            write(key, b"x")
        except (StorageError, ValueError):
            continue
        assert Path(os.path.realpath(inner / key)).is_relative_to(os.path.realpath(inner))
    assert {path for path in tree(tmp_path) if not path.startswith("deep/er/out/")} == before


def test_links_that_lead_out_are_not_written_through(tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (outside / "precious").write_bytes(b"mine")
    (out / "link").symlink_to(outside)
    (out / "within").symlink_to(out)
    storage = LocalStorage(out)
    for key in ("link/evil", "link/deep/evil", "within/link/evil"):
        with pytest.raises(StorageError, match="leads out of"):
            storage.put(key, b"x")
    with pytest.raises(StorageError, match="leads out of"):
        storage.delete("link/precious")
    assert tree(outside) == {"precious"}
    (out / "file").symlink_to(outside / "precious")
    assert storage.put("file", b"new", overwrite=True)
    assert (outside / "precious").read_bytes() == b"mine"
    assert storage.put("within/fine", b"x")
    linked = LocalStorage(tmp_path / "alias")
    linked.root.symlink_to(out)
    assert linked.put("also-fine", b"x")


def test_objects_with_hostile_names_stay_inside_a_local_destination(
    proxy: FaultyS3, moto: str, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From a bucket whose listing claims whatever it likes, into a folder."""
    clip = media.make_clip(tmp_path / "a.mp4", frames=3)
    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    fine = ["fine.mp4", "%2e%2e/%2e%2e/evil1.mp4", "．．/．．/evil2.mp4", "~/evil3.mp4", "‥/evil4.mp4"]
    for key in [*fine, "innocent5.mp4", "innocent6.mp4", "innocent7.mp4", "b\\..\\..\\evil8.mp4"]:
        client.put_object(Bucket=bucket, Key=f"raw/{key}", Body=clip.read_bytes())
    claims = {
        b"raw/innocent5.mp4": b"raw/../../evil5.mp4",
        b"raw/innocent6.mp4": b"raw//evil6.mp4",
        b"raw/innocent7.mp4": b"/evil7.mp4",
    }

    def lie(exchange: Exchange) -> Answer:
        got = exchange.forward()
        body = got.body
        for true, claim in claims.items():
            body = body.replace(true, claim)
        return replace(got, body=body)

    proxy.always("GET list-type", lie)
    out = tmp_path / "deep" / "er" / "out"
    report = compress([f"s3://{bucket}/raw"], str(out), CONFIG, load_codec=load_fake)
    assert {video.name for video in report.videos if video.status == "ok"} == set(fine)
    assert tree(tmp_path) - {"a.mp4", "deep", "deep/er", "deep/er/out"} == {
        path for path in tree(tmp_path) if path.startswith("deep/er/out/")
    }
    for key in fine:
        assert (out / f"{key}.s2vc").is_file()
    assert not Path("/evil6.mp4.s2vc").exists()
    assert not Path("/evil7.mp4.s2vc").exists()
    assert len([record for record in caplog.records if "not listed" in record.getMessage()]) == 4


def test_hostile_names_given_outright_stay_inside_as_well(
    proxy: FaultyS3, bucket: str, tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"s3://{bucket}/raw/a/b.mp4\ns3://{bucket}/raw/a/../../../evil.mp4\n")
    out = tmp_path / "deep" / "er" / "out"
    sources = [f"s3://{bucket}/raw/../../evil.mp4", f"s3://{bucket}/raw/..\\evil.mp4", f"@{listed}"]
    for source in sources:
        report = compress([source], str(out), CONFIG, load_codec=load_fake)
        assert all(video.status == "failed" for video in report.videos)
    assert not [path for path in tree(tmp_path) if "evil" in path]
