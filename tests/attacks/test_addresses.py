"""Hostile addresses reach nothing: no private host, no second look-up, no endless body."""

from __future__ import annotations

import gzip
import ipaddress
import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from capsmith.errors import DownloadError
from capsmith.fetch import FetchLimits, IPAddress, picture
from tests.photos import encoded, photo
from tests.servers import redirect, response, serve

PICTURE = encoded(photo("cat", (64, 48)), "PNG")
OURS = ipaddress.ip_address("127.0.0.1")


def is_ours(address: IPAddress) -> bool:
    return address == OURS


def refusal(url: str, **limits: Any) -> str:
    with pytest.raises(DownloadError) as caught:
        picture(url, limits=FetchLimits(**limits), is_allowed=is_ours)
    message = str(caught.value)
    assert message.isprintable()
    return message


# --- 40 addresses that must not open a socket

HOSTILE = [
    "http://127.0.0.1/",
    "http://127.8.9.10/",
    "http://localhost/",
    "http://localhost./",
    "http://[::1]/",
    "http://[::]/",
    "http://0/",
    "http://0.0.0.0/",
    "http://127.1/",
    "http://2130706433/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://127.0.0.1.:80/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]/",
    "http://[fe80::1%25lo]/",
    "http://[fd00:ec2::254]/",
    "http://100.100.100.200/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://224.0.0.1/",
    "http://[ff02::1]/",
    "file:///etc/passwd",
    "gopher://93.184.216.34/_x",
    "http://user@93.184.216.34/",
    "http://93.184.216.34\\@127.0.0.1/",
    "http://127。0。0。1/",
    "http://93.184.216.34:22/",
    "http://93.184.216.34/\r\nHost: 127.0.0.1",
    "http:///etc/passwd",
]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Every connection that is attempted while the test runs."""
    attempts: list[tuple[Any, ...]] = []

    class Watched(socket.socket):
        def connect(self, address: Any) -> None:
            attempts.append(address)
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Watched)
    return attempts


def test_hostile_addresses_open_no_socket(opened: list[tuple[Any, ...]]) -> None:
    assert len(set(HOSTILE)) == 40
    for url in HOSTILE:
        with pytest.raises(DownloadError) as caught:
            picture(url)
        assert str(caught.value).isprintable(), url
    assert opened == []


def test_passwords_are_not_repeated() -> None:
    assert "secret" not in refusal("http://user:secret@example.org/")


# --- names that answer differently


def answer(monkeypatch: pytest.MonkeyPatch, port: int, *answers: list[str]) -> Iterator[list[str]]:
    """Let every name resolve to the given answers in turn, the last one for ever."""
    rest = itertools.chain(answers, itertools.repeat(answers[-1]))

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        families = ((socket.AF_INET6 if ":" in a else socket.AF_INET, a) for a in next(rest))
        return [(family, socket.SOCK_STREAM, 6, "", (a, port)) for family, a in families]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return rest


def test_a_name_that_turns_private_is_looked_up_once(
    monkeypatch: pytest.MonkeyPatch, opened: list[tuple[Any, ...]]
) -> None:
    """The first answer is checked and connected to; the private second one is never asked for."""
    with serve(cat=response(PICTURE)) as server:
        url, ports = f"http://photos.example:{server.port}/cat", frozenset([server.port])
        for _ in range(50):
            rest = answer(monkeypatch, server.port, ["127.0.0.1"], ["10.0.0.1"])
            assert picture(url, limits=FetchLimits(ports=ports), is_allowed=is_ours) == PICTURE
            assert next(rest) == ["10.0.0.1"]
    assert set(opened) == {("127.0.0.1", server.port)}


def test_a_name_that_turns_private_between_hops_is_refused(
    monkeypatch: pytest.MonkeyPatch, opened: list[tuple[Any, ...]]
) -> None:
    with serve(again=redirect("/again")) as server:
        url, ports = f"http://photos.example:{server.port}/again", frozenset([server.port])
        for turn in range(100):
            answer(monkeypatch, server.port, ["127.0.0.1"], [f"10.0.0.{turn}"])
            assert f"at 10.0.0.{turn}" in refusal(url, ports=ports)
    assert opened == [("127.0.0.1", server.port)] * 100


@pytest.mark.parametrize("private", ["10.0.0.1", "::1", "::ffff:127.0.0.2", "fe80::1%lo"])
def test_one_private_address_among_public_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch, opened: list[tuple[Any, ...]], private: str
) -> None:
    answer(monkeypatch, 80, ["93.184.216.34", private])
    with pytest.raises(DownloadError, match="not a public address"):
        picture("http://photos.example/")
    assert opened == []


def test_a_resolver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3) or [])
    began = time.monotonic()
    assert "0.3 seconds" in refusal("http://photos.example/", timeout_s=0.3)
    assert time.monotonic() - began < 2


# --- redirects


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://127.0.0.2/", "not a public address"),
        ("http://[::1]/", "not a public address"),
        ("//169.254.169.254/latest/", "not a public address"),
        ("http://2130706433/", "not a valid host"),
        ("http://user:secret@example.org/", "user name"),
        ("http://127.0.0.1:22/", "port 22"),
        ("file:///etc/passwd", "only http and https"),
        ("gopher://example.org/", "only http and https"),
        ("/loop", "more than 3 times"),
        ("/hop1", "more than 3 times"),
    ],
)
def test_redirect_chains(target: str, reason: str) -> None:
    chain = {f"hop{i}": redirect(f"/hop{i + 1}") for i in range(1, 4)}
    with serve(start=redirect(target), loop=redirect("/loop"), **chain) as server:
        server.answers["/hop4"] = response(PICTURE)
        message = refusal(server.url("/start"), ports=frozenset([80, server.port]))
    assert reason in message
    assert "secret" not in message
    assert len(server.asked) <= 4


# --- bodies

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


def slow_head(connection: socket.socket) -> None:
    for byte in HEAD * 99:
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def slow_body(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
    for _ in range(100):
        connection.sendall(b"x")
        time.sleep(0.1)


def silent(connection: socket.socket) -> None:
    connection.recv(1)


def endless_body(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"\r\n")
    while True:
        connection.sendall(bytes(1 << 16))


def endless_head(connection: socket.socket) -> None:
    connection.sendall(HEAD)
    while True:
        connection.sendall(b"X-More: " + b"x" * 60_000 + b"\r\n")


def endless_chunks(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"ffff\r\n" + bytes(0xFFFF) + b"\r\n")


def endless_continue(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 99)


ZIPPED = gzip.compress(bytes(20_000_000), mtime=0)
BODIES = {
    "slow_head": (slow_head, "not done within 1 seconds"),
    "slow_body": (slow_body, "not done within 1 seconds"),
    "silent": (silent, "not done within 1 seconds"),
    "endless_continue": (endless_continue, "not done within 1 seconds"),
    "endless_body": (endless_body, "larger than 1 MB"),
    "endless_chunks": (endless_chunks, "larger than 1 MB"),
    "endless_head": (endless_head, "cannot be fetched"),
    "promises_much": (HEAD + b"Content-Length: 99000000\r\n\r\nx", "larger than 1 MB"),
    "promises_more": (HEAD + b"Content-Length: 999\r\n\r\nx", "before the end"),
    "promises_nonsense": (HEAD + b"Content-Length: -5\r\n\r\n" + bytes(2_000_000), "larger than 1"),
    "gzip_bomb": (HEAD + b"Content-Encoding: gzip\r\n\r\n" + ZIPPED, "compressed"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_are_cut_at_the_limit(name: str) -> None:
    body, reason = BODIES[name]
    with serve(cat=body) as server:
        began = time.monotonic()
        message = refusal(
            server.url("/cat"),
            ports=frozenset([server.port]),
            timeout_s=1.0 if "not done" in reason else 10.0,
            max_bytes=1_000_000,
        )
        assert reason in message
        assert time.monotonic() - began < 10


def test_a_promise_of_less_is_kept() -> None:
    with serve(cat=HEAD + b"Content-Length: 4\r\n\r\n" + PICTURE) as server:
        limits = FetchLimits(ports=frozenset([server.port]))
        assert picture(server.url("/cat"), limits=limits, is_allowed=is_ours) == PICTURE[:4]
