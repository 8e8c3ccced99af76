"""Fetch pictures by address without letting the address choose what this machine talks to.

An address from a stranger can name the cloud's metadata service, a database on the local network
or a name that answers differently the second time it is asked (server-side request forgery, DNS
rebinding). So each hop is parsed once, resolved once, refused unless every answer is a public
address, and connected to exactly the address that was checked; size and time are bounded.
Proxies of the environment are not used: they would resolve names out of sight.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from capsmith.errors import DownloadError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset([301, 302, 303, 307, 308])
_HOST_NAME: Final = re.compile(
    r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?"
)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """What fetching one picture may cost, redirects included, and which ports it may use."""

    max_bytes: int = 100_000_000
    timeout_s: float = 10.0
    max_redirects: int = 3
    ports: frozenset[int] = frozenset([80, 443])


def is_public(address: IPAddress) -> bool:
    """Whether `address` is a host of the public internet, whatever it is wrapped in.

    IPv4 addresses inside IPv6 ones (mapped, NAT64, 6to4, Teredo) are judged as what they carry.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if address.ipv4_mapped:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.sixtofour:
        return is_public(address.sixtofour)
    if address.teredo:
        return all(is_public(inner) for inner in address.teredo)
    return address in _GLOBAL_UNICAST and address.is_global and not address.is_multicast


def picture(
    url: str,
    *,
    limits: FetchLimits | None = None,
    is_allowed: Callable[[IPAddress], bool] = is_public,
) -> bytes:
    """The bytes of the picture at an http or https address.

    `is_allowed` decides on every address that a name resolves to; replace it only to reach hosts
    of your own network on purpose. Raises `DownloadError`, one line that names the address.
    """
    limits = limits or FetchLimits()
    deadline = time.monotonic() + limits.timeout_s
    name = _shown(url)
    try:
        for _ in range(limits.max_redirects + 1):
            content, target = _hop(url, name, limits, is_allowed, deadline)
            if target is None:
                return content
            if _is_downgrade(url, target):
                raise DownloadError(f"{name}: redirected from https to http, which is refused")
            url = target
    except TimeoutError as error:
        raise DownloadError(f"{name}: not done within {limits.timeout_s:g} seconds") from error
    except ssl.SSLCertVerificationError as error:
        raise DownloadError(f"{name}: its certificate is not valid here") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{name}: cannot be fetched: {_shown(_reason(error))}") from error
    raise DownloadError(f"{name}: redirected more than {limits.max_redirects} times")


def _hop(
    url: str,
    name: str,
    limits: FetchLimits,
    is_allowed: Callable[[IPAddress], bool],
    deadline: float,
) -> tuple[bytes, str | None]:
    """One request: (content, None), or (b"", the address it redirects to)."""
    parts = _parse(url, name, limits.ports)
    host, port = cast(str, parts.hostname), parts.port or _DEFAULT_PORTS[parts.scheme]
    addresses = _resolve(host, port, name, deadline)
    for address in addresses:
        if not is_allowed(address):
            raise DownloadError(f"{name}: {host} is at {address}, not a public address: refused")
    with _connect(addresses, parts, port, deadline) as connected:
        connection = http.client.HTTPConnection(host, port)
        connection.sock = cast(socket.socket, _DeadlineSocket(connected, deadline))
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?") if parts.query else ""
        headers = {
            "Host": parts.netloc,
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "User-Agent": "capsmith",
            "Connection": "close",
        }
        connection.request("GET", path + query, headers=headers)
        with connection.getresponse() as response:
            if response.status in _REDIRECTS:
                return b"", urljoin(url, response.headers.get("Location", ""))
            return _body(response, name, limits.max_bytes), None


def _parse(url: str, name: str, ports: frozenset[int]) -> SplitResult:
    """Split an address once; whatever two parsers could read differently is refused."""
    # urlsplit silently drops some control characters, and others read a backslash as a slash.
    if not all(c.isprintable() and c not in " \\" for c in url):
        raise DownloadError(f"{name}: spaces, backslashes and control characters are refused")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DownloadError(f"{name}: not a valid address") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise DownloadError(f"{name}: only http and https addresses are fetched")
    if "@" in parts.netloc:
        raise DownloadError(f"{name}: addresses with a user name or password are refused")
    if not _is_host(parts.hostname or ""):
        raise DownloadError(f"{name}: not a valid host name (write international ones as xn--)")
    if (_DEFAULT_PORTS[parts.scheme] if port is None else port) not in ports:
        allowed = ", ".join(map(str, sorted(ports)))
        raise DownloadError(f"{name}: port {port} is refused, allowed: {allowed}")
    return parts


def _is_host(host: str) -> bool:
    """Whether a host is a plain name, or an address in the one form that all parsers agree on."""
    if "%" in host:
        return False
    if _literal(host):
        return True
    # 0177.1, 0x7f000001 and 2130706433 are loopback to some resolvers and names to others.
    last = host.removesuffix(".").rpartition(".")[2]
    return len(host) <= 253 and bool(_HOST_NAME.fullmatch(host)) and not _NUMBER.fullmatch(last)


def _literal(host: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _resolve(host: str, port: int, name: str, deadline: float) -> list[IPAddress]:
    literal = _literal(host)
    if literal:
        return [literal]
    answers: list[IPAddress] = []

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        answers.extend(ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in found)

    # The system's resolver cannot be interrupted, so it is left behind at the deadline.
    resolver = threading.Thread(target=ask, daemon=True)
    resolver.start()
    resolver.join(_seconds_left(deadline))
    if resolver.is_alive():
        raise TimeoutError
    if not answers:
        raise DownloadError(f"{name}: there is no host {host}")
    return list(dict.fromkeys(answers))


def _connect(
    addresses: list[IPAddress], parts: SplitResult, port: int, deadline: float
) -> socket.socket:
    """Connect to the first address that answers; the name is used for TLS alone."""
    for address in addresses:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.settimeout(_seconds_left(deadline))
            connected.connect((str(address), port))
            if parts.scheme == "https":
                context = ssl.create_default_context()
                connected.settimeout(_seconds_left(deadline))
                connected = context.wrap_socket(connected, server_hostname=parts.hostname)
            return connected
        except OSError as error:
            connected.close()
            failure = error
    raise failure


def _body(response: http.client.HTTPResponse, name: str, max_bytes: int) -> bytes:
    if response.status != 200:
        raise DownloadError(f"{name}: the server answered {response.status}")
    kind = response.headers.get_content_type() if "Content-Type" in response.headers else "nothing"
    if not kind.startswith("image/") and not kind.endswith("/octet-stream"):
        raise DownloadError(f"{name}: the server calls this {_shown(kind)}, not a picture")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        # A few kilobytes of it can unfold to gigabytes, and pictures gain nothing by it.
        raise DownloadError(f"{name}: the server sent compressed content, which is refused")
    promised = response.length
    too_large = DownloadError(f"{name}: larger than {max_bytes / 1e6:g} MB")
    if promised is not None and promised > max_bytes:
        raise too_large
    content = io.BytesIO()
    while piece := response.read(1 << 16):
        content.write(piece)
        if content.tell() > max_bytes:
            raise too_large
    if promised is not None and content.tell() != promised:
        raise DownloadError(f"{name}: the server stopped before the end of the picture")
    return content.getvalue()


def _is_downgrade(url: str, target: str) -> bool:
    return url[:6].lower() == "https:" and target[:6].lower() != "https:"


def _seconds_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shown(text: str) -> str:
    """Text from outside on one line, without passwords, at most 200 characters."""
    text = re.sub(r"//[^/?#]*@", "//", text[:2000])
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= 200 else line[:199] + "…"


def _reason(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__


class _DeadlineSocket:
    """A connected socket as `http.client` uses one, whose operations all end by one deadline.

    A plain socket timeout starts anew with every byte: a server that sends one byte a second
    would hold the caller for ever. `close` is left to the owner of the socket, because
    `http.client` closes its connection while the body is still to be read.
    """

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._connected = connected
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._connected.settimeout(_seconds_left(self._deadline))
        self._connected.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._connected, self._deadline))

    def close(self) -> None:
        pass


class _DeadlineReader(io.RawIOBase):
    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._connected = connected
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._connected.settimeout(_seconds_left(self._deadline))
        return self._connected.recv_into(buffer)
