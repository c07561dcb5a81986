"""Headless Chromium, driven through ChromeDriver's WebDriver protocol, which is JSON over HTTP."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


class Browser:
    def __init__(self, server: str, binary: str, profile: Path) -> None:
        self.url = f"{server}/session"
        options = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self.send("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.url = f"{self.url}/{session}"

    def send(self, command: str, body: dict[str, Any]) -> Any:
        request = Request(self.url + command, json.dumps(body).encode())
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self.send("/url", {"url": url})

    def js(self, code: str, *args: Any) -> Any:
        return self.send("/execute/sync", {"script": code, "args": list(args)})

    def devtools(self, command: str, **settings: Any) -> Any:
        return self.send("/goog/cdp/execute", {"cmd": command, "params": settings})

    def look(self, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, *, whole: bool = False) -> bytes:
        found = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])

    def complaints(self) -> list[str]:
        """What the console has said since the last call."""
        return [each["message"] for each in self.send("/se/log", {"type": "browser"})]

    def requested(self) -> list[str]:
        """Addresses that pages have asked for since the last call."""
        log = self.send("/se/log", {"type": "performance"})
        events = [json.loads(each["message"])["message"] for each in log]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]


@contextmanager
def browsing(driver: str, binary: str, profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own; it and its driver are ended in any case."""
    command = [driver, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = (re.search(r"successfully on port (\d+)", line) for line in process.stdout)
            port = next(found[1] for found in told if found)
            browser = Browser(f"http://127.0.0.1:{port}", binary, profile)
            try:
                yield browser
            finally:
                with urlopen(Request(browser.url, method="DELETE"), timeout=60):
                    pass
        finally:
            process.terminate()
