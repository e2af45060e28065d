"""A browser without a window, told what to do over a pipe (the Chrome DevTools Protocol)."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.requirements import need

_OPTIONS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--remote-debugging-pipe",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900"),
)


class Browser:
    """One page of a browser."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = os.fdopen(reader, "rb", buffering=0)
        self._writer = os.fdopen(writer, "wb", buffering=0)
        self._buffer = b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """What the browser has reported without being asked."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Close the pipes: the browser ends."""
        self._reader.close()
        self._writer.close()

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._reader.fileno(), 1 << 20)
            assert more, "the browser has ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, path: Path) -> None:
        """Open a file, and return when its script has run."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.value(
            "new Promise((done) => { const look = () => document.documentElement?.dataset.ready ? done(true) : "
            "requestAnimationFrame(look); look(); })"
        )

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page; of a promise, what it becomes."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key in what has the focus."""
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Backspace": 8, "ArrowRight": 39, "ArrowDown": 40}[key]
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, expression: str) -> None:
        """Click with the mouse on the middle of an element."""
        x, y = self.value(
            f"(() => {{ const e = {expression}; e.scrollIntoView({{block: 'center'}}); "
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + Math.min(r.height / 2, 8)]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser that has its files in *folder*."""
    need("chromium")
    hears, says = os.pipe(), os.pipe()
    command = ["chromium", *_OPTIONS, f"--user-data-dir={folder}/profile", "about:blank"]
    # The browser reads from 3 and writes to 4.
    process = subprocess.Popen(
        ["bash", "-c", f'exec 3<&{hears[0]} 4>&{says[1]}; exec "$@"', "bash", *command],
        pass_fds=(hears[0], says[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder)},
    )
    os.close(hears[0])
    os.close(says[1])
    page = Browser(says[0], hears[1])
    try:
        yield page
    finally:
        page.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
