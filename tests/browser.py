"""A headless Chromium, driven through its debugging protocol, where the machine has one."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[str]:
    """A running browser; gives the address of its debugging interface. RuntimeError if it does not start."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", *flags]
    command += [f"--user-data-dir={profile}", "--window-size=1280,1000", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    late = threading.Timer(120, process.kill)  # a browser that says nothing is read for ever otherwise
    late.start()
    try:
        found = next(filter(None, (re.search(r"listening on ws://([^/]+)/", line) for line in process.stderr)), None)
        late.cancel()
        if found is None:
            raise RuntimeError("Chromium did not start")
        yield f"http://{found[1]}"
    finally:
        late.cancel()
        process.kill()
        process.wait(60)
        process.stderr.close()


class Tab:
    """One page. `troubles` are what it complained of: exceptions, log entries, messages to its console."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.count, self.troubles = socket, 0, list[str]()

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        self.count += 1
        await self.socket.send_json({"id": self.count, "method": method, "params": arguments})
        while True:
            message = await self.socket.receive_json(timeout=600)
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.troubles.append(str(message["params"]))
            if message.get("id") == self.count:
                assert "error" not in message, message
                found: dict[str, Any] = message["result"]
                return found

    async def js(self, expression: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def visit(self, page: Path) -> None:
        """Load a file and wait until all of it is there."""
        await self.call("Page.navigate", url=page.resolve().as_uri())
        for _ in range(600):
            if await self.js("document.readyState === 'complete' && location.protocol === 'file:'"):
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{page} did not load in a minute")

    async def size(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await asyncio.sleep(0.1)

    async def prefer(self, scheme: str) -> None:
        """Ask for a "dark" or "light" page."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def screenshot(self) -> np.ndarray:
        """(H, W, 3) pixels of what is in view."""
        png = base64.b64decode((await self.call("Page.captureScreenshot"))["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@asynccontextmanager
async def opened(browser: str) -> AsyncIterator[Tab]:
    """The browser's first tab, with what it complains of."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{browser}/json") as answer:
            target = next(t for t in await answer.json() if t["type"] == "page")
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            found = Tab(socket)
            for domain in ("Runtime", "Log", "Page", "Network"):
                await found.call(f"{domain}.enable")
            yield found
