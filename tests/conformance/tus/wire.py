"""HTTP/1.1 over plain sockets: what a conformance check has to send is often what a library would not."""

import socket
import ssl
import time
from urllib.parse import urlsplit

TIMEOUT = 20.0


class Response:
    """Status, header fields in order, and the body."""

    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name):
        values = self.all(name)
        return values[0] if values else None

    def __repr__(self):
        return f"{self.status} {dict(self.fields)} {self.body[:200]!r}"


class Connection:
    """One connection, closed at the end of `with`."""

    def __init__(self, url):
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host = parts.netloc
        self.socket = socket.create_connection((parts.hostname, port), timeout=TIMEOUT)
        if parts.scheme == "https":
            self.socket = ssl.create_default_context().wrap_socket(self.socket, server_hostname=parts.hostname)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_head(self, method, target, fields):
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in fields]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def send(self, data):
        self.socket.sendall(data)

    def send_chunk(self, data):
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def _line(self):
        while b"\r\n" not in self.buffer:
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.buffer += data

    def receive(self, method, interim=False):
        """The next final response; with `interim` also an interim one."""
        while True:
            status = int(self._line().split(" ", 2)[1])
            fields = []
            while line := self._line():
                name, value = line.split(":", 1)
                fields.append((name.strip(), value.strip()))
            if status >= 200 or interim:
                break
        response = Response(status, fields, b"")
        if method == "HEAD" or status in (204, 304) or status < 200:
            return response
        if "chunked" in (response.get("Transfer-Encoding") or ""):
            while size := int(self._line().split(";")[0], 16):
                response.body += self._take(size)
                self._line()
            while self._line():
                pass
        elif response.get("Content-Length") is not None:
            response.body = self._take(int(response.get("Content-Length")))
        else:
            try:
                while True:
                    self._more()
            except ConnectionError:
                response.body, self.buffer = self.buffer, b""
        return response

    def _take(self, size):
        while len(self.buffer) < size:
            self._more()
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def silent_for(self, seconds):
        """Whether nothing arrives for so long."""
        self.socket.settimeout(seconds)
        try:
            self._more()
            return False
        except (TimeoutError, socket.timeout):
            return True
        finally:
            self.socket.settimeout(TIMEOUT)


def request(url, method, fields=(), body=None, chunked=False, trailers=()):
    """One request on a connection of its own."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    fields = list(fields)
    if chunked:
        fields.append(("Transfer-Encoding", "chunked"))
    elif body is not None or method in ("POST", "PATCH", "PUT"):
        body = body or b""
        fields.append(("Content-Length", str(len(body))))
    fields.append(("Connection", "close"))
    with Connection(url) as connection:
        connection.send_head(method, target, fields)
        try:
            if chunked:
                for at in range(0, len(body), 1000):
                    connection.send_chunk(body[at : at + 1000])
                end = "0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers) + "\r\n"
                connection.send(end.encode())
            elif body:
                connection.send(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The server may answer before it has read everything.
        return connection.receive(method)


def is_up(url):
    """Whether somebody listens."""
    try:
        with Connection(url):
            return True
    except OSError:
        return False


def wait_until(what, seconds=10.0):
    """Asks again until it is true; whether it became so."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
