"""Pictures are fetched from a real server, with the headers and limits that are promised."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from capsmith.errors import DownloadError
from capsmith.fetch import FetchLimits, IPAddress, is_public, picture
from capsmith.runtime.pictures import open_picture
from tests.photos import encoded, photo
from tests.servers import Server, redirect, response, serve

PICTURE = encoded(photo("cat", (64, 48)), "PNG")


def is_loopback(address: IPAddress) -> bool:
    return address.is_loopback


def fetch(server: Server, path: str, **limits: object) -> bytes:
    allowed = FetchLimits(ports=frozenset([server.port]), **limits)  # type: ignore[arg-type]
    return picture(server.url(path), limits=allowed, is_allowed=is_loopback)


def refusal(server: Server, path: str, **limits: object) -> str:
    with pytest.raises(DownloadError) as caught:
        fetch(server, path, **limits)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith("http")
    return message


def test_a_picture_and_what_is_asked_for() -> None:
    with serve(
        cat=response(PICTURE), octets=response(PICTURE, kind="binary/octet-stream")
    ) as server:
        assert fetch(server, "/cat") == PICTURE
        assert fetch(server, "/octets") == PICTURE
        head = server.heads[0]
        picture_ = open_picture(server.url("/cat"), open_url=lambda _: fetch(server, "/cat"))
        assert picture_.size == (64, 48)
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in head
    assert "\r\nAccept-Encoding: identity\r\n" in head
    assert "Cookie" not in head


def test_chunked_and_unframed_bodies() -> None:
    half = len(PICTURE) // 2
    pieces = [PICTURE[:half], PICTURE[half:], b""]
    chunked = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    start = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
    with serve(
        chunked=start + b"Transfer-Encoding: chunked\r\n\r\n" + chunked,
        unframed=start + b"\r\n" + PICTURE,
    ) as server:
        assert fetch(server, "/chunked") == PICTURE
        assert fetch(server, "/unframed") == PICTURE


def test_paths_and_queries_arrive_as_written() -> None:
    with serve() as server:
        for path in ("/a%20b/ü?q=1&r=%2F#part", "/", "?x"):
            refusal(server, path)
    assert server.asked == ["/a%20b/%C3%BC?q=1&r=%2F", "/", "/?x"]


def test_redirects_are_followed() -> None:
    with serve(a=redirect("b"), b=redirect("/c"), cat=response(PICTURE)) as server:
        server.answers["/c"] = redirect(server.url("/cat"))
        assert fetch(server, "/a") == PICTURE
        assert server.asked == ["/a", "/b", "/c", "/cat"]
        assert "more than 2 times" in refusal(server, "/a", max_redirects=2)


def test_what_is_not_a_picture() -> None:
    with serve(
        page=response(b"<html>", kind="text/html"),
        nothing=response(PICTURE, kind=""),
        zipped=response(b"x", "Content-Encoding: gzip"),
        short=response(PICTURE)[:-9],
        junk=b"\0" * 99,
        closed=b"",
    ) as server:
        assert "text/html" in refusal(server, "/page")
        assert "nothing" in refusal(server, "/nothing")
        assert "compressed" in refusal(server, "/zipped")
        assert "before the end" in refusal(server, "/short")
        assert "cannot be fetched" in refusal(server, "/junk")
        assert "cannot be fetched" in refusal(server, "/closed")
        assert "answered 404" in refusal(server, "/none")


def test_size_limit() -> None:
    with serve(cat=response(PICTURE)) as server:
        assert fetch(server, "/cat", max_bytes=len(PICTURE)) == PICTURE
        assert "larger than" in refusal(server, "/cat", max_bytes=len(PICTURE) - 1)


def test_nobody_answers() -> None:
    with serve() as server:
        pass
    assert "cannot be fetched" in refusal(server, "/cat")


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(cat=response(PICTURE)) as server:
        answers = [("127.0.0.9", server.port), ("127.0.0.1", server.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", answer) for answer in answers]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        server.host = "photos.example"
        assert fetch(server, "/cat") == PICTURE
        assert f"Host: photos.example:{server.port}" in server.heads[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for photos.example, with its key, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    options = "-x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out certificate.pem"
    name = ["-subj", "/CN=photos.example", "-addext", "subjectAltName=DNS:photos.example"]
    command = ["openssl", "req", *options.split(), *name]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "certificate.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return both


def test_tls_asks_for_the_name_and_connects_to_the_checked_address(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    answers: dict[str, bytes] = {"cat": response(PICTURE)}
    with serve(certificate=certificate, **answers) as server:
        server.answers["/down"] = redirect(server.url("/cat"))
        found = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [found])
        limits = FetchLimits(ports=frozenset([server.port]))

        def get(host: str, path: str) -> bytes:
            url = f"https://{host}:{server.port}{path}"
            return picture(url, limits=limits, is_allowed=is_loopback)

        assert get("photos.example", "/cat") == PICTURE
        with pytest.raises(DownloadError, match="from https to http"):
            get("photos.example", "/down")
        with pytest.raises(DownloadError, match="certificate is not valid"):
            get("other.example", "/cat")
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(DownloadError, match="certificate is not valid"):
            get("photos.example", "/cat")
    assert server.asked == ["/cat", "/down"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::93.184.216.34", True),
        ("2002:5db8:d822::1", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.0.2.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::1", False),
        ("::7f00:1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::1", False),
        ("2001:0:7f00:1::1", False),
        ("fc00::1", False),
        ("fe80::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public
