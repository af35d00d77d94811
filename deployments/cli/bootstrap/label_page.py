"""Labels on a page: a small server on the loopback, under an address that nobody can guess."""

from __future__ import annotations

import html
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from deployments.bootstrap.labelling import Answer, Labels, next_pair
from deployments.bootstrap.ledger import Ledger
from deployments.bootstrap.study import Study

SAID = {"left": (True, False), "right": (False, True), "both": (True, True), "neither": (False, False)}
LONGEST = 10_000  # bytes of an answer
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Which show it?</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:16px system-ui;margin:2rem auto;max-width:60rem;text-align:center;color-scheme:light dark}}
img{{width:45%;image-rendering:pixelated;border:1px solid #888}}button{{font:inherit;padding:.5rem 1.2rem;margin:.3rem}}
</style><p>{done} of {most} labels</p><h1>{prompt}</h1><p>
<img src="{left}" alt="left"> <img src="{right}" alt="right"></p>
<form method="post">{hidden}{buttons}</form>
<script>const keys={{"1":"left","2":"right","b":"both","n":"neither"}};addEventListener("keydown",e=>{{
const b=document.querySelector(`button[value="${{keys[e.key]}}"]`);if(b)b.click()}})</script></html>"""


def ask_on_page(
    study: Study, ledger: Ledger, labels: Labels, most: int, rater: str, tell: Callable[[str], None]
) -> None:
    """Serve the page until there are `most` labels, or Ctrl-C. tell: is called with its address"""
    server = server_of(study, ledger, labels, most, rater)
    tell(f"http://127.0.0.1:{server.server_address[1]}{server.place}")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


class LabelServer(ThreadingHTTPServer):
    """place: the path of the page, with a secret in it"""

    place: str


def server_of(study: Study, ledger: Ledger, labels: Labels, most: int, rater: str) -> LabelServer:
    """A server that is not running yet, on a free port of the loopback."""
    place = f"/{secrets.token_urlsafe(16)}/"
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        """The page, its pictures, and answers."""

        def do_GET(self) -> None:
            name = self.path.removeprefix(place)
            if not self.path.startswith(place):
                self._send(404, b"not found", "text/plain")
            elif not name:
                with lock:
                    self._send(200, _page(study, ledger, labels, most, place).encode(), "text/html; charset=utf-8")
            elif name in ledger.entries and (file := ledger.picture_file(ledger.entries[name].shot)).is_file():
                self._send(200, file.read_bytes(), "image/png")
            else:
                self._send(404, b"not found", "text/plain")

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if self.path != place or not 0 < length <= LONGEST:
                self._send(404, b"not found", "text/plain")
                return
            given = {
                key: values[0] for key, values in parse_qs(self.rfile.read(length).decode("utf-8", "replace")).items()
            }
            known = {given.get("left"), given.get("right")} <= ledger.entries.keys()
            if known and given.get("said") in SAID:
                with lock:
                    shows = SAID[given["said"]]
                    labels.add(Answer(given["left"], given["right"], *shows, rater=rater, again="again" in given))
                    if _count(labels) >= most:
                        threading.Thread(target=self.server.shutdown, daemon=True).start()
            self.send_response(303)
            self.send_header("location", place)
            self.send_header("content-length", "0")
            self.end_headers()

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.send_header("cache-control", "no-store")
            self.send_header("referrer-policy", "no-referrer")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the terminal belongs to whoever labels."""

    server = LabelServer(("127.0.0.1", 0), Handler)
    server.place = place
    return server


def _count(labels: Labels) -> int:
    return sum(map(len, labels.by_picture().values()))


def _page(study: Study, ledger: Ledger, labels: Labels, most: int, place: str) -> str:
    pair = next_pair(study, ledger, labels) if _count(labels) < most else None
    if pair is None:
        return "<!doctype html><title>Done</title><p>Done. You can close this page."
    values = {"left": pair.left, "right": pair.right, **({"again": "1"} if pair.again else {})}
    hidden = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in values.items())
    words = {"left": "left (1)", "right": "right (2)", "both": "both (b)", "neither": "neither (n)"}
    buttons = "".join(f'<button name="said" value="{key}">{word}</button>' for key, word in words.items())
    return PAGE.format(
        done=_count(labels), most=most, prompt=html.escape(pair.prompt), left=place + pair.left,
        right=place + pair.right, hidden=hidden, buttons=buttons,
    )  # fmt: skip
