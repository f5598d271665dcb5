"""A proxy in front of an S3 server that fails requests on a seeded schedule."""

import http.client
import random
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
    "<Message>injected</Message></Error>"
)
FAULTS = ("500", "503", "reset", "lost_answer", "cut_body", "slow_body", "expired")


class FaultyProxy:
    """Listens on loopback; `rate` of the requests fail, each kind in its turn, by `seed`.

    Attributes:
        done: how often each fault was injected.
        down: every request is refused.
        no_conditions: conditional headers are dropped, as by stores that do not know them.
    """

    def __init__(self, backend: str, seed: int, rate: float) -> None:
        self.rate, self.down, self.no_conditions = rate, False, False
        self.done: Counter[str] = Counter()
        self._host = backend.removeprefix("http://")
        self._random, self._lock = random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self._next()
        if self.down or fault in ("500", "503", "expired"):
            code, status = {
                "500": ("InternalError", 500),
                "expired": ("ExpiredToken", 400),
            }.get(fault, ("SlowDown", 503))
            return self._answer(request, status, [], ERROR.format(code=code).encode())
        if fault == "reset":
            return self._reset(request)
        headers = {
            name: value
            for name, value in request.headers.items()
            if not (self.no_conditions and name.lower() == "if-none-match")
        }
        backend = http.client.HTTPConnection(self._host, timeout=60)
        try:
            backend.request(request.command, request.path, body or None, headers)
            answer = backend.getresponse()
            data = answer.read()
        finally:
            backend.close()
        if fault == "lost_answer":  # the store has done it, and nobody is told
            return self._reset(request)
        self._answer(request, answer.status, answer.getheaders(), data, fault)

    def _next(self) -> str:
        with self._lock:
            if self._random.random() >= self.rate:
                return ""
            fault = FAULTS[self.done.total() % len(FAULTS)]
            self.done[fault] += 1
            return fault

    def _answer(self, request, status, headers, data, fault="") -> None:
        request.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                request.send_header(name, value)
        length = next((v for k, v in headers if k.lower() == "content-length"), len(data))
        request.send_header("Content-Length", length if request.command == "HEAD" else len(data))
        request.end_headers()
        if request.command == "HEAD":
            return
        if fault == "cut_body" and len(data) > 1:
            request.wfile.write(data[: len(data) // 2])
            self._reset(request)
        elif fault == "slow_body":
            step = max(1, len(data) // 5)
            for start in range(0, len(data), step):
                request.wfile.write(data[start : start + step])
                request.wfile.flush()
                time.sleep(0.05)
        else:
            request.wfile.write(data)

    def _reset(self, request) -> None:
        request.close_connection = True
        linger = (1).to_bytes(4, "little") + bytes(4)
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.connection.close()
