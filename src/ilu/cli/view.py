"""``ilu view``: a local page that reports all runs below a folder, and one that asks the models."""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ilu.cli.flags import parse
from ilu.cli.help import Positional
from ilu.cli.signals import interruptible
from ilu.cli.terminal import console
from ilu.cli.view_ask import LONGEST, Asking, Reply
from ilu.runs.report.gather import Broken, find_runs, gather
from ilu.runs.report.page import page
from ilu.runs.report.table import make_table

HOST = "127.0.0.1"
LOAD = 10
"""Pause between two updates, in units of the time of the last one: at most a tenth of a core."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, kw_only=True)
class View:
    """Serve the report of all runs below a folder as a local page that updates itself.

    A second page asks the models of the runs, and their originals, the same prompt. Only this
    machine can open them. Ctrl-C stops the server.

    Example: ilu view runs

    Args:
        runs: folder of run directories.
        port: port of the server; 0 takes a free one.
        device: device of the models that answer: cpu, cuda, cuda:1, mps.
    """

    runs: Positional[Path]
    port: int = 0
    device: str = "cpu"


@dataclass
class Live:
    """The last page, with the fingerprint of the files that it shows."""

    root: Path
    state: str = ""
    html: bytes = b""
    due: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def update(self) -> None:
        """Render the page again if the runs have changed and the pause is over."""
        with self.lock:
            began = time.monotonic()
            if began < self.due:
                return
            first = not self.html  # which imports what it needs: no measure of the others
            runs = list(find_runs(self.root))
            state = fingerprint(runs)
            if state != self.state:
                self.html = render(self.root, runs)
                self.state = state
            took = 0.0 if first else time.monotonic() - began
            self.due = time.monotonic() + LOAD * took


def view(argv: Sequence[str]) -> None:
    """Carry out ``ilu view``."""
    wanted: View = parse(View, "ilu view", argv)
    if not wanted.runs.is_dir():
        raise ValueError(f"{wanted.runs} is not a folder: give ilu view the folder of your runs")
    with serve(wanted.runs, wanted.port, wanted.device) as server, interruptible() as stop:
        console.print(f"http://{HOST}:{server.server_port}/ (Ctrl-C stops it)", markup=False)
        while not stop():
            server.handle_request()
    console.print("stopped")


def serve(root: Path, port: int, device: str = "cpu") -> ThreadingHTTPServer:
    """A server of both pages, for this machine only."""
    if not 0 <= port < 2**16:
        raise ValueError(f"--port {port}: it must be from 0 to 65535; 0 takes a free one")
    live, asking = Live(root.resolve()), Asking(root.resolve(), device)
    # The library requires a subclass; the house rule allows none, so it is made by type().
    answers: dict[str, Any] = {
        "timeout": 30,
        "do_GET": lambda request: answer(request, live, asking),
        "do_POST": lambda request: answer_models(request, asking),
        "log_message": lambda *_: None,
    }
    handler = type("Page", (BaseHTTPRequestHandler,), answers)
    try:
        server = ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise ValueError(
            f"port {port} cannot be used ({error.strerror}): choose another with --port, or leave "
            "--port out for a free one"
        ) from None
    server.daemon_threads = True
    server.timeout = 0.5
    return server


def answer(request: BaseHTTPRequestHandler, live: Live, asking: Asking) -> None:
    """Answer with a page or the fingerprint of the report; no path leads to a file.

    Another name in the Host header means DNS rebinding by another site: the request is refused.
    """
    if request.headers.get("Host") not in own_hosts(request):
        request.send_error(HTTPStatus.FORBIDDEN, "This page is for this machine only")
    elif request.path == "/ask":
        send(request, asking.page())
    elif request.path in ("/", "/state"):
        live.update()
        page, state = Reply(HTTPStatus.OK, "text/html", live.html), live.state.encode()
        send(request, page if request.path == "/" else Reply(HTTPStatus.OK, "text/plain", state))
    else:
        request.send_error(HTTPStatus.NOT_FOUND, "There are two pages: / and /ask")


def answer_models(request: BaseHTTPRequestHandler, asking: Asking) -> None:
    """Ask models for our own page; a request from the page of another site is refused."""
    hosts = own_hosts(request)
    length = request.headers.get("Content-Length", "")
    ours = (
        request.headers.get("Host") in hosts
        and request.headers.get("Origin") in {f"http://{host}" for host in hosts}
        and request.headers.get("Content-Type") == "application/json"
    )
    if not ours:
        request.send_error(HTTPStatus.FORBIDDEN, "This page is for this machine only")
    elif request.path != "/ask":
        request.send_error(HTTPStatus.NOT_FOUND, "Only /ask answers")
    elif not length.isdigit() or int(length) > LONGEST:
        request.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {LONGEST} bytes")
    else:
        send(request, asking.reply(request.rfile.read(int(length))))


def send(request: BaseHTTPRequestHandler, reply: Reply) -> None:
    """Send a reply."""
    request.send_response(reply.status)
    for name, value in {**HEADERS, "Content-Type": f"{reply.kind}; charset=utf-8"}.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(reply.body)))
    request.end_headers()
    request.wfile.write(reply.body)


def own_hosts(request: BaseHTTPRequestHandler) -> set[str]:
    """The names of this server in a request of this machine."""
    port = server_port(request)
    return {f"{HOST}:{port}", f"localhost:{port}"}


def server_port(request: BaseHTTPRequestHandler) -> int:
    """The port of the server."""
    return request.connection.getsockname()[1]


def inside(root: Path, run: Path) -> bool:
    """Whether no record of a run is a link out of ``root``."""
    return all(file.resolve().is_relative_to(root) for file in records(run))


def records(run: Path) -> list[Path]:
    """The files of a run that a report may read."""
    kinds = ("*", "scores/*", "curves/*", "failures/*", "examples/*/*")
    return sorted(file for kind in kinds for file in run.glob(f"{kind}.json*"))


def fingerprint(runs: Sequence[Path]) -> str:
    """Hash of names, sizes and times of all records: it changes when a run proceeds."""
    digest = hashlib.sha256()
    for file in (file for run in runs for file in records(run)):
        try:
            found = file.stat()
        except OSError:  # a file that is being renamed
            continue
        digest.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()


def render(root: Path, runs: Sequence[Path]) -> bytes:
    """The page as bytes."""
    measured, broken = gather([run for run in runs if inside(root, run)])
    outside = [Broken(run, f"leads out of {root}") for run in runs if not inside(root, run)]
    # Relative to the folder of the runs: the page is the same wherever the command was started.
    shown = page(make_table(measured), [*broken, *outside], live=True, home=root.parent)
    return shown.encode()
