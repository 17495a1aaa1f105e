"""Web servers on loopback: one that misbehaves as it is told, one that keeps silent, and none at all."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Server:
    """A running web server: what it holds, what it was asked for, how it misbehaves."""

    url: str
    folder: Path
    asked: list[str] = field(default_factory=list)
    status: dict[str, list[int]] = field(default_factory=dict)  # answers other than 200, first ones first
    sends: Callable[[bytes], bytes] = bytes  # what it sends of the bytes it promises
    hold: threading.Event | None = None  # waits for it in the middle of a file

    def offer(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return f"{self.url}/{name}"


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve the files that will lie in a new folder."""
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            state.asked.append(name)
            file = folder / name
            body = file.read_bytes() if file.is_file() else b""
            answers = state.status.get(name)
            self.send_response(answers.pop(0) if answers else 200 if file.is_file() else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                body = state.sends(body)
                half = len(body) // 2
                self.wfile.write(body[:half])
                if state.hold:
                    state.hold.wait(timeout=600)
                self.wfile.write(body[half:])

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{httpd.server_port}", folder)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"
