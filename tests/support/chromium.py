"""Drives a headless Chromium through the pipe of its DevTools protocol; needs nothing installed."""

import base64
import json
import os
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # the root of a container has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--no-default-browser-check",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find() -> str | None:
    """Path of a Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """One page of one Chromium process with an empty profile.

    Attributes:
        problems: Texts of uncaught errors, of messages on the console's error level (violations of
            the content security policy among them), and addresses of requests to other hosts.
    """

    def __init__(self, profile: Path, width: int = 1280, height: int = 1000):
        read_commands, self._out = os.pipe()
        self._in, write_answers = os.pipe()
        # Not `select.select`, which knows no descriptors above 1023.
        self._readable = selectors.DefaultSelector()
        self._readable.register(self._in, selectors.EVENT_READ)
        # Chromium reads commands from descriptor 3 and answers on 4.
        redirect = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirect, "sh", find(), *_ARGUMENTS, f"--user-data-dir={profile}"],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self.problems: list[str] = []
        self._buffer = b""
        self._number = 0
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: Any) -> None:
        self._session = None
        try:
            self.call("Browser.close", timeout=10)
            self._process.wait(10)
        except (EOFError, TimeoutError, BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        self._readable.close()
        os.close(self._in)

    def call(self, method: str, timeout: float = 60, **parameters: Any) -> dict[str, Any]:
        """Sends one command of the protocol and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._notice(answer.get("method"), answer.get("params", {}))

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, url: str) -> None:
        """Loads a page afresh, also if only the fragment of its address differs."""
        self.call("Page.navigate", url="about:blank")
        self.wait_for("location.href === 'about:blank'")  # what was there is gone
        if url != "about:blank":
            self.call("Page.navigate", url=url)

    def reload(self) -> None:
        """Loads the page again; what is asked for afterwards is asked of the new one."""
        self.evaluate("window.before = true")
        self.call("Page.reload")
        self.wait_for("!window.before")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression, which may be a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def wait_for(self, expression: str, timeout: float = 60) -> None:
        """Waits until a JavaScript expression is true."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                if self.evaluate(f"!!({expression})"):
                    return
                reason = "it is false"
            except RuntimeError as error:  # what it looks at is not there yet
                reason = error
            if time.monotonic() > deadline:
                raise TimeoutError(f"Not true after {timeout} s: {expression} ({reason})")
            time.sleep(0.05)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """`kind`: `"mouseMoved"`, `"mousePressed"` or `"mouseReleased"`, in pixels of the page."""
        button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{**button, **more})

    def screenshot(self, path: Path) -> None:
        data = self.call("Page.captureScreenshot", format="png")["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not self._readable.select(max(deadline - time.monotonic(), 0)):
                raise TimeoutError("Chromium does not answer.")
            part = os.read(self._in, 2**20)
            if not part:
                raise EOFError("Chromium has ended.")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _notice(self, event: str | None, parameters: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            self.problems.append(text)
        elif event == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            self.problems.append(f"{entry['text']} {entry.get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.problems.append(json.dumps(parameters["args"]))
        elif event == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith(
                ("http://localhost", "http://127.0.0.1", "data:", "blob:", "about:")
            ):
                self.problems.append(f"request to {url}")
