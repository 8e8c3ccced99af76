"""A real HTTP server on the loopback interface, which answers each path with raw bytes."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

Answer = Callable[[socket.socket], None]


@dataclass
class Server:
    """`answers` maps a path to what is sent for it; `asked` lists the paths asked for."""

    host: str
    port: int
    answers: dict[str, bytes | Answer]
    asked: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://{self.host}:{self.port}{path}"


def response(body: bytes, *headers: str, kind: str = "image/png", status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    if kind:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(target: str) -> bytes:
    return response(b"", f"Location: {target}", status="302 Found")


@contextmanager
def serve(
    host: str = "127.0.0.1", *, certificate: Path | None = None, **answers: bytes | Answer
) -> Iterator[Server]:
    """Serve `/NAME` for each keyword until the block ends, by TLS where a certificate is given."""

    class Handler(socketserver.BaseRequestHandler):
        def setup(self) -> None:
            if certificate:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(certificate)
                self.request = context.wrap_socket(
                    self.request, server_side=True, do_handshake_on_connect=False
                )

        def handle(self) -> None:
            head = b""
            with suppress(OSError), self.request:
                while b"\r\n\r\n" not in head and (piece := self.request.recv(4096)):
                    head += piece
                if not head:
                    return
                path = head.split(b" ")[1].decode()
                server.asked.append(path)
                server.heads.append(head.decode())
                answer = server.answers.get(path, response(b"", status="404 Not Found"))
                if isinstance(answer, bytes):
                    self.request.sendall(answer)
                else:
                    answer(self.request)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Listener((host, 0), Handler) as listener:
        shown = f"[{host}]" if ":" in host else host
        named = {f"/{name}": answer for name, answer in answers.items()}
        server = Server(shown, listener.server_address[1], named)
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()
