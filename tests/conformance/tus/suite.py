"""What a check works with: the server under test, and the list of checks."""

import base64
import hashlib
import os
from urllib.parse import urljoin, urlsplit

import wire

CHECKS = []


class Skip(Exception):
    """The check does not apply, or cannot be made from outside; the text says why."""


def check(name, says, extension=None):
    """Registers a check under the name it has in the list. `extension` must be announced for it to apply."""

    def register(function):
        CHECKS.append((name, says, extension, function))
        return function

    return register


def expect(condition, what, response=None):
    if not condition:
        raise AssertionError(f"{what}: {response!r}" if response is not None else what)


def b64(data):
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def digest(algorithm, data):
    return f"{algorithm} {b64(hashlib.new(algorithm, data).digest())}"


def content(size):
    return os.urandom(size)


class Server:
    """A tus server, as a client sees it."""

    def __init__(self, url, headers, fetch, expires_within, other_headers):
        self.url, self.headers, self.fetch = url, headers, fetch
        self.expires_within, self.other_headers = expires_within, other_headers
        answer = self.raw("OPTIONS", url, [])
        self.extensions = {e.strip() for e in (answer.get("Tus-Extension") or "").split(",") if e.strip()}
        self.max_size = int(answer.get("Tus-Max-Size") or 0)
        self.algorithms = [a.strip() for a in (answer.get("Tus-Checksum-Algorithm") or "").split(",")]

    def raw(self, method, url, fields, body=None, **how):
        """A request with the credentials, and nothing else that was not asked for."""
        return wire.request(url, method, list(fields) + self.headers, body, **how)

    def tus(self, method, url, fields=(), body=None, **how):
        return self.raw(method, url, [("Tus-Resumable", "1.0.0"), *fields], body, **how)

    def post(self, fields, body=None, **how):
        return self.tus("POST", self.url, fields, body, **how)

    def create(self, length, *fields, metadata=None):
        """A new upload's URL."""
        if metadata is None:
            metadata = f"filename {b64('conformance-' + os.urandom(6).hex())}"
        fields = [("Upload-Length", str(length)), ("Upload-Metadata", metadata), *fields]
        answer = self.post(fields)
        expect(answer.status == 201, "an upload could not be created", answer)
        return self.locate(answer)

    def defer(self, *fields):
        answer = self.post([("Upload-Defer-Length", "1"), *fields])
        expect(answer.status == 201, "an upload of unknown length could not be created", answer)
        return self.locate(answer)

    def locate(self, answer):
        location = answer.get("Location")
        expect(location, "no Location", answer)
        return urljoin(self.url, location)

    def patch(self, url, offset, body, *fields, **how):
        fields = [("Upload-Offset", str(offset)), ("Content-Type", "application/offset+octet-stream"), *fields]
        return self.tus("PATCH", url, fields, body, **how)

    def head(self, url):
        return self.tus("HEAD", url)

    def offset(self, url):
        answer = self.head(url)
        expect(answer.status in (200, 204), "HEAD failed", answer)
        return int(answer.get("Upload-Offset") or -1)

    def begin_patch(self, url, offset, length, *fields):
        """A PATCH of `length` bytes of which none are sent yet."""
        connection = wire.Connection(url)
        target = urlsplit(url).path
        fields = [
            ("Tus-Resumable", "1.0.0"),
            ("Upload-Offset", str(offset)),
            ("Content-Type", "application/offset+octet-stream"),
            ("Content-Length", str(length)),
            *fields,
        ]
        connection.send_head("PATCH", target, fields + self.headers)
        return connection

    def stored(self, url, filename, expected):
        """Compares what was uploaded with what can be fetched."""
        where = self.fetch.replace("{filename}", filename) if self.fetch else url
        answer = self.raw("GET", where, [])
        if not self.fetch and answer.status in (404, 405):
            return  # The protocol has no download: only lengths and offsets can be compared then.
        expect(answer.status == 200, "the content cannot be fetched", answer)
        expect(hashlib.sha256(answer.body).digest() == hashlib.sha256(expected).digest(), "other bytes are stored")

    def named(self):
        """A file name of its own, and the metadata that says it."""
        name = "conformance-" + os.urandom(6).hex()
        return name, f"filename {b64(name)}"
