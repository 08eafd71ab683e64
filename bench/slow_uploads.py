#!/usr/bin/env python3
"""What slow uploads cost in memory: a server with many bodies under way at once, each of which brings a little at a time.

    bench/slow_uploads.py [--uploads 1000] [--proto put|tus|small] [--seconds 12] [--bytes 4096] [--every 0.25]

`put`: whole bodies of 1 MiB; `tus`: the same by one PATCH each; `small`: whole bodies of 30 KiB, which the server keeps in
memory until they are there. Prints the server's memory of its own (RssAnon and RssShmem) per upload, above that of the
idle server after a first upload. `CARRACK_BIN` names the server, else `target/release/carrack`.
"""
import argparse, os, re, resource, socket, subprocess, tempfile, time

TOKEN = "bench-root-token"
BINARY = os.environ.get("CARRACK_BIN", os.path.join(os.path.dirname(__file__), "../target/release/carrack"))


def memory_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        text = status.read()
    return sum(int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1]) for name in ("RssAnon", "RssShmem"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def connect(port, head):
    stream = socket.create_connection(("127.0.0.1", port))
    stream.sendall((head + f"Host: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n").encode())
    return stream


def answered(port, head, body=b""):
    with connect(port, head) as stream:
        stream.sendall(body)
        return stream.recv(65536).decode()


def begin(port, proto, number, size):
    if proto != "tus":
        return connect(port, f"PUT /v1/files/default/slow/{number} HTTP/1.1\r\nContent-Length: {size}\r\n")
    created = answered(port, f"POST /v1/tus HTTP/1.1\r\nTus-Resumable: 1.0.0\r\nUpload-Length: {size}\r\nContent-Length: 0\r\n")
    path = re.search(r"(?im)^location: (?:https?://[^/]*)?(\S+)", created)[1]
    return connect(port, f"PATCH {path} HTTP/1.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
                         f"Content-Type: application/offset+octet-stream\r\nContent-Length: {size}\r\n")


def measure(port, pid, wish):
    size = 30 << 10 if wish.proto == "small" else 1 << 20
    piece = os.urandom(64 if wish.proto == "small" else wish.bytes)
    answered(port, "PUT /v1/files/default/first HTTP/1.1\r\nContent-Length: 200000\r\n", os.urandom(200_000))
    time.sleep(3)
    idle, quiet = memory_kib(pid), threads(pid)
    streams = [begin(port, wish.proto, number, size) for number in range(wish.uploads)]
    most, until, seen = 0, time.monotonic() + wish.seconds, []
    while time.monotonic() < until:
        round_began = time.monotonic()
        for stream in streams:
            stream.sendall(piece)
        seen.append(memory_kib(pid))
        most = max(most, threads(pid))
        time.sleep(max(0, wish.every - (time.monotonic() - round_began)))
    for stream in streams:
        stream.setblocking(False)
        try:
            if answer := stream.recv(200):
                raise SystemExit(f"an upload was answered early: {answer[:200]}")
        except BlockingIOError:
            pass
    each = lambda kib: (kib - idle) / wish.uploads
    print(f"{wish.uploads} uploads ({wish.proto}): idle server {idle} KiB, {quiet} threads; "
          f"each {each(seen[-1]):.1f} KiB at the end, {each(max(seen)):.1f} KiB at most, {most} threads")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--uploads", type=int, default=1000)
    parser.add_argument("--proto", choices=["put", "tus", "small"], default="put")
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--every", type=float, default=0.25)
    wish = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, CARRACK_ROOT_TOKEN=TOKEN)
        server = subprocess.Popen([BINARY, "serve", "--listen", "127.0.0.1:0", "--data", folder + "/data"],
                                  env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            measure(int(server.stdout.readline().rsplit(":", 1)[1]), server.pid, wish)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
