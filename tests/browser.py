"""Headless Chromium, driven by the DevTools protocol over two pipes: no package, no port."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, _NAMES)), None)
MISSING = "no Chromium here; the pages are tested where there is one (Debian: apt install chromium)"
_TIMEOUT_S = 60.0


class Browser:
    """A browser process. Use as a context manager."""

    def __init__(self):
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4, so these two lie higher.
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (to_browser, from_browser)]
        os.close(to_browser)
        os.close(from_browser)
        null = os.open(os.devnull, os.O_RDWR)
        places = [(null, 0), (null, 1), (null, 2), (ends[0], 3), (ends[1], 4)]
        self._process = os.posix_spawn(
            PROGRAM,
            [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--mute-audio", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
             "--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe",
             f"--user-data-dir={self._home.name}", "about:blank"],
            {**os.environ, "HOME": self._home.name},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, place) for fd, place in places],
        )  # fmt: skip
        for fd in (*ends, null):
            os.close(fd)
        self._number = 0
        self._rest = b""
        self.listeners = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.kill(self._process, signal.SIGTERM)
        os.waitpid(self._process, 0)
        os.close(self._write)
        os.close(self._read)
        self._home.cleanup()

    def call(self, method, session=None, **parameters):
        """Result of a command; events that come meanwhile go to their page."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + _TIMEOUT_S
        while True:
            answer = self.next(until - time.monotonic())
            assert answer is not None, f"{method}: no answer of the browser"
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def next(self, timeout):
        """The next message, None if none comes in time."""
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0, timeout))[0]:
                return None
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        listener = self.listeners.get(message.get("sessionId"))
        if listener and "method" in message:
            listener(message["method"], message["params"])
        return message

    def open(self, path, width=1400, height=900, dark=False, fragment=""):
        """A page of a file, loaded."""
        return Page(self, Path(path).resolve().as_uri() + fragment, width, height, dark)


class Page:
    """A tab.

    Attributes:
        errors: texts of exceptions, of `console.error` and of resources that did not load.
    """

    def __init__(self, browser, url, width, height, dark):
        self._browser = browser
        self.errors = []
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        browser.listeners[self._session] = self._event
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        went = self._call("Page.navigate", url=url)
        assert "errorText" not in went, f"{url}: {went}"
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def _call(self, method, **parameters):
        return self._browser.call(method, self._session, **parameters)

    def _event(self, method, parameters):
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.errors.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url')}")

    def run(self, expression):
        """Value of a JavaScript expression; a promise is waited for."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True,
        )  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition, seconds=30):
        """Wait until a JavaScript expression is true."""
        until = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < until, f"never true: {condition}; errors: {self.errors}"
            self._browser.next(0.05)

    def click(self, selector, x=None, y=None):
        """Press the mouse on an element, in its middle or at this place in it."""
        box = self.run(
            f"(() => {{const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]})()"
        )
        place = {
            "x": box[0] + (box[2] / 2 if x is None else x),
            "y": box[1] + (box[3] / 2 if y is None else y),
        }
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def type(self, selector, text):
        """Write into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)

    def press(self, key):
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path, whole=True):
        """Write a PNG of the page, or of what is in view."""
        clip = {}
        if whole:
            size = self._call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"],
                             "scale": 1}}  # fmt: skip
        data = self._call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)["data"]
        Path(path).write_bytes(base64.b64decode(data))
        return path

    def close(self):
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)
        del self._browser.listeners[self._session]
