"""``ilu view``: the report of all runs below a folder as a local page that follows them."""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ilu.cli.flags import Positional, parse
from ilu.cli.signals import interruptible
from ilu.cli.terminal import console
from ilu.runs.report.gather import Broken, find, gather
from ilu.runs.report.page import page
from ilu.runs.report.table import make_table

HOST = "127.0.0.1"
LOAD = 10
"""A page is made anew after this many times what the last one took: a tenth of a core at most."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, kw_only=True)
class View:
    """Show the report of all runs below a folder in the browser while they go on.

    Only this machine can see it. Ctrl-C ends it.

    Example: ilu view runs

    Args:
        runs: folder of run directories.
        port: where to listen; a free port if left out.
    """

    runs: Positional[Path]
    port: int = 0


@dataclass
class Live:
    """The page as it was made last, and of what state of the files."""

    root: Path
    state: str = ""
    html: bytes = b""
    due: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def update(self) -> None:
        """Make the page anew if the runs have gone on, but not all the time."""
        with self.lock:
            began = time.monotonic()
            if began < self.due:
                return
            runs = list(find(self.root))
            state = fingerprint(runs)
            if state != self.state:
                self.html = render(self.root, runs)
                self.state = state
            self.due = time.monotonic() + LOAD * (time.monotonic() - began)


def view(argv: Sequence[str]) -> None:
    """Carry out ``ilu view``."""
    wanted: View = parse(View, "ilu view", argv)
    if not wanted.runs.is_dir():
        raise ValueError(f"{wanted.runs} is not a folder: ilu view needs the folder of your runs")
    with serve(wanted.runs, wanted.port) as server, interruptible() as stop:
        console.print(f"http://{HOST}:{server.server_port}/ (Ctrl-C ends it)", markup=False)
        while not stop():
            server.handle_request()
    console.print("stopped")


def serve(root: Path, port: int) -> ThreadingHTTPServer:
    """A server of the page, for this machine only."""
    if not 0 <= port < 2**16:
        raise ValueError(f"--port {port}: it must be from 0 to 65535; 0 takes a free one")
    live = Live(root.resolve())
    # The library asks for a subclass; this is one without a class statement of ours.
    answers: dict[str, Any] = {
        "timeout": 30,
        "do_GET": lambda request: answer(request, live),
        "log_message": lambda *_: None,
    }
    server = ThreadingHTTPServer((HOST, port), type("Page", (BaseHTTPRequestHandler,), answers))
    server.daemon_threads = True
    server.timeout = 0.5
    return server


def answer(request: BaseHTTPRequestHandler, live: Live) -> None:
    """Answer with the page or its state, and nothing else: no path leads to a file.

    A name other than ours in the Host header is another site's, made to point here.
    """
    port = server_port(request)
    if request.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
        request.send_error(HTTPStatus.FORBIDDEN, "This page is for this machine only")
        return
    if request.path not in ("/", "/state"):
        request.send_error(HTTPStatus.NOT_FOUND, "There is only one page")
        return
    live.update()
    whole = request.path == "/"
    body = live.html if whole else live.state.encode()
    request.send_response(HTTPStatus.OK)
    kind = "text/html" if whole else "text/plain"
    for name, value in {**HEADERS, "Content-Type": f"{kind}; charset=utf-8"}.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def server_port(request: BaseHTTPRequestHandler) -> int:
    """Where we listen."""
    return request.connection.getsockname()[1]


def inside(root: Path, run: Path) -> bool:
    """Whether none of a run's records is a link that leads out of ``root``."""
    return all(file.resolve().is_relative_to(root) for file in records(run))


def records(run: Path) -> list[Path]:
    """The files of a run that a report may read."""
    kinds = ("*", "scores/*", "curves/*", "failures/*", "examples/*/*")
    return sorted(file for kind in kinds for file in run.glob(f"{kind}.json*"))


def fingerprint(runs: Sequence[Path]) -> str:
    """What changes when a run goes on."""
    digest = hashlib.sha256()
    for file in (file for run in runs for file in records(run)):
        try:
            found = file.stat()
        except OSError:  # a file on its way to its name
            continue
        digest.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()


def render(root: Path, runs: Sequence[Path]) -> bytes:
    """The page as it is sent."""
    measured, broken = gather([run for run in runs if inside(root, run)])
    outside = [Broken(run, f"leads out of {root}") for run in runs if not inside(root, run)]
    return page(make_table(measured), [*broken, *outside], live=True).encode()
