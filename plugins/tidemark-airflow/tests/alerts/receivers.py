"""Servers that receive alerts and give the answers that a test sets."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

SECRET = "T0SECRET/hunter2"


class Webhook(ThreadingHTTPServer):
    """Gives the answers in `answers`, repeating the last; keeps what it received in `bodies`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies = []
        self.paths = []
        self.answers = [(200, {})]
        self.silent = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/services/{SECRET}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_):
        if self.silent:
            self.silent.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        server.paths.append(self.path)
        if server.silent:
            server.silent.wait()
            return
        status, headers = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        self.send_response(status)
        for header in headers.items():
            self.send_header(*header)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@dataclass
class Mailbox:
    """Accepts mail, after the answers in `answers`."""

    answers: list[str] = field(default_factory=list)
    refused: tuple[str, ...] = ()
    mails: list = field(default_factory=list)
    envelopes: list = field(default_factory=list)
    attempts: int = 0
    logins: list = field(default_factory=list)

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        self.attempts += 1
        if self.answers:
            return self.answers.pop(0)
        self.envelopes.append(envelope)
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"

    def authenticate(self, _server, _session, _envelope, _mechanism, data):
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password == SECRET.encode())

    def controller(self, **options):
        return _MailServer(self, hostname="127.0.0.1", port=0, **options)


class _MailServer(Controller):
    """Listens on any free port."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
