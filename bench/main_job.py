#!/usr/bin/env python3
"""Measures the main job on the release binary: completing a large upload, memory under load, an archive of many files,
and the start after kill -9. Prints one line per figure with the bound it is held against. Python 3.9+, no packages.

    bench/main_job.py [--binary target/release/carrack] [complete rss zip archive deflate watch kill]
"""
import argparse, asyncio, http.client, json, os, random, re, shutil, signal, subprocess, sys, tempfile, threading, time

TOKEN = "bench-root-token"
AUTH = {"Authorization": "Bearer " + TOKEN}
MIB = 1 << 20


class Server:
    def __init__(self, binary, data, **settings):
        self.binary, self.data, self.settings = binary, data, settings
        self.start()

    def start(self):
        began = time.monotonic()
        env = dict(os.environ, CARRACK_ROOT_TOKEN=TOKEN, **self.settings)
        command = [self.binary, "serve", "--listen", "127.0.0.1:0", "--data", self.data]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
        line = self.process.stdout.readline()
        self.port = int(line.strip().rsplit(":", 1)[1])
        while self.call("GET", "/readyz")[0] != 200:
            time.sleep(0.005)
        self.ready_seconds = time.monotonic() - began

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def call(self, method, path, body=None, headers=None, connection=None):
        connection = connection or self.connect()
        connection.request(method, path, body=body, headers={**AUTH, **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read(), response

    def proc(self, name):
        with open(f"/proc/{self.process.pid}/{name}") as f:
            return f.read()

    def status_kib(self, field):
        return int(re.search(rf"{field}:\s+(\d+)", self.proc("status")).group(1))

    def read_bytes(self):
        return int(re.search(r"rchar: (\d+)", self.proc("io")).group(1))

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()


def report(name, value, unit, bound):
    print(f"{name:<58} {value:>10.1f} {unit:<4} (bound: {bound})", flush=True)


def parallel(count, work):
    failures = []

    def run(index):
        try:
            work(index)
        except Exception as error:  # noqa: BLE001 - shown below, then the bench fails
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    if failures:
        sys.exit(f"failed: {failures[0]!r}")


def upload_parts(server, key, parts, part_size, connections=4):
    """Uploads parts of random bytes (one block for all) and returns the upload's id."""
    create = {"bucket": "default", "key": key, "size": parts * part_size, "part_size": part_size}
    status, body, _ = server.call("POST", "/v1/uploads", json.dumps(create))
    assert status == 201, (status, body)
    upload = json.loads(body)["upload_id"]
    block, numbers, lock = os.urandom(part_size), list(range(1, parts + 1)), threading.Lock()
    random.Random(1).shuffle(numbers)

    def work(_):
        connection = server.connect()
        while True:
            with lock:
                if not numbers:
                    return
                number = numbers.pop()
            status, body, _ = server.call("PUT", f"/v1/uploads/{upload}/parts/{number}", block, connection=connection)
            assert status == 200, (status, body)

    parallel(connections, work)
    return upload


def bench_complete(binary, folder):
    server = Server(binary, os.path.join(folder, "complete"), CARRACK_UPLOADS__DURABILITY="power")
    began = time.monotonic()
    upload = upload_parts(server, "ten-gib", 1280, 8 * MIB)
    print(f"10 GiB in 1,280 parts over 4 connections, acknowledged durable: {10 / (time.monotonic() - began):.2f} GiB/s")
    before, connection = server.read_bytes(), server.connect()
    connection.connect()
    began = time.monotonic()
    status, body, _ = server.call("POST", f"/v1/uploads/{upload}/complete", connection=connection)
    seconds = time.monotonic() - began
    assert status == 201, (status, body)
    report("complete of 10 GiB in 1,280 parts", seconds * 1e3, "ms", "under 50")
    report("bytes the server read meanwhile (all files)", (server.read_bytes() - before) / 1024, "KiB", "not the data")
    server.stop()
    shutil.rmtree(server.data)


def bench_rss(binary, folder):
    server = Server(binary, os.path.join(folder, "rss"))
    block = os.urandom(MIB)

    def load(index):
        connection = server.connect()
        for n in range(index, 1000, 8):
            assert server.call("PUT", f"/v1/files/default/z/{n:04}", block, connection=connection)[0] == 201

    parallel(8, load)
    with open(os.path.join(folder, "gib"), "wb") as f:
        for _ in range(1024):
            f.write(block)
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], server.status_kib("VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()

    def work(index):
        if index < 8:
            command = ["curl", "-sS", "-f", "-o", "/dev/null", "-H", "Authorization: " + AUTH["Authorization"],
                       "-T", os.path.join(folder, "gib"), f"http://127.0.0.1:{server.port}/v1/files/default/up/{index}"]
        else:
            command = ["curl", "-sS", "-f", "-o", "/dev/null", "-H", "Authorization: " + AUTH["Authorization"],
                       f"http://127.0.0.1:{server.port}/v1/zip/default?prefix=z/"]
        subprocess.run(command, check=True)

    began = time.monotonic()
    parallel(16, work)
    seconds = time.monotonic() - began
    done.set()
    watcher.join()
    print(f"8 uploads of 1 GiB beside 8 ZIPs of 1,000 x 1 MiB: {seconds:.1f} s")
    report("peak RSS meanwhile", peak[0] / 1024, "MiB", "under 100")
    server.stop()
    shutil.rmtree(server.data)
    os.unlink(os.path.join(folder, "gib"))


def bench_zip(binary, folder):
    server = Server(binary, os.path.join(folder, "zip"), CARRACK_UPLOADS__DURABILITY="process")

    def load(index):
        connection = server.connect()
        for n in range(index, 100_000, 8):
            path = f"/v1/files/default/tree/{n // 1000:03}/some-file-name-{n:06}.dat"
            assert server.call("PUT", path, str(n), connection=connection)[0] == 201

    began = time.monotonic()
    parallel(8, load)
    print(f"loaded 100,000 files: {100_000 / (time.monotonic() - began):.0f}/s")
    server.stop()
    first, tail = [], []
    for _ in range(5):
        server.start()
        connection = server.connect()
        connection.connect()
        began = time.monotonic()
        connection.request("GET", "/v1/zip/default?prefix=tree/", headers=AUTH)
        response = connection.getresponse()
        response.read(1)
        first.append(time.monotonic() - began)
        length, etag = int(response.headers["Content-Length"]), response.headers["ETag"]
        connection.close()
        headers = {"Range": f"bytes={length - 65536}-", "If-Range": etag}
        connection = server.connect()
        connection.connect()
        began = time.monotonic()
        status, body, _ = server.call("GET", "/v1/zip/default?prefix=tree/", headers=headers, connection=connection)
        tail.append(time.monotonic() - began)
        assert status == 206 and len(body) == 65536, status
        server.stop()
    report("first byte of a ZIP over 100,000 files, after a start (worst)", max(first) * 1e3, "ms", "under 100")
    report("the same, median of 5", sorted(first)[2] * 1e3, "ms", "under 100")
    report("last 64 KiB of it by Range (worst of 5)", max(tail) * 1e3, "ms", "under 50")
    shutil.rmtree(server.data)


def completed(server, wish):
    """Makes an archive and waits for it; the archive and the seconds it took."""
    began = time.monotonic()
    status, body, _ = server.call("POST", "/v1/archives", json.dumps(wish))
    archive = json.loads(body)
    assert status in (201, 202), (status, body)
    while archive["state"] in ("waiting", "running"):
        time.sleep(0.002)
        archive = json.loads(server.call("GET", f"/v1/archives/{archive['id']}")[1])
    assert archive["state"] == "completed", archive
    return archive, time.monotonic() - began


def bench_archive(binary, folder):
    """An archive of a million entries: the same small file a million times, under a million names."""
    server = Server(binary, os.path.join(folder, "archive"))
    server.call("PUT", "/v1/files/default/a", b"x" * 100)
    archive, seconds = completed(server, {"bucket": "default", "entries": [{"key": "a"}] * 1_000_000})
    print(f"an archive of 1,000,000 named entries, frozen: {seconds:.1f} s")
    path, first, tail = f"/v1/archives/{archive['id']}/content", [], []
    for _ in range(5):
        server.stop()
        server.start()
        for times, wished in (first, "bytes=0-99"), (tail, f"bytes={archive['size'] - 65536}-"):
            connection = server.connect()
            connection.connect()
            began = time.monotonic()
            status, _, _ = server.call("GET", path, headers={"Range": wished}, connection=connection)
            times.append(time.monotonic() - began)
            assert status == 206
    report("first bytes of 1,000,000 entries, after a start (worst of 5)", max(first) * 1e3, "ms", "under 200")
    report("then its last 64 KiB (worst of 5)", max(tail) * 1e3, "ms", "under 50")
    server.stop()
    server.start()
    slow = [server.connect() for _ in range(100)]
    for connection in slow:
        connection.request("GET", path, headers=AUTH)
        connection.getresponse().read(100_000)
    time.sleep(1)
    report("peak RSS, 100 slow clients of it", server.status_kib("VmHWM") / 1024, "MiB", "under 125")
    report("RSS then", server.status_kib("VmRSS") / 1024, "MiB", "under 125")
    server.stop()
    shutil.rmtree(server.data)


def corpus(folder):
    """Files of a folder, up to 256 MiB."""
    left = 256 * MIB
    for place, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) <= left:
                left -= os.path.getsize(path)
                yield path


def bench_deflate(binary, folder):
    """Real text and binaries: BENCH_CORPUS, or Python's own library."""
    server = Server(binary, os.path.join(folder, "deflate"), CARRACK_UPLOADS__DURABILITY="process")
    root, connection, size = os.environ.get("BENCH_CORPUS", os.path.dirname(os.__file__)), server.connect(), 0
    for number, path in enumerate(corpus(root)):
        with open(path, "rb") as f:
            content = f.read()
        size += len(content)
        status = server.call("PUT", f"/v1/files/default/c/{number:05}", content, connection=connection)[0]
        assert status == 201, status
    wish = {"bucket": "default", "prefix": "c/", "compression": "deflate"}
    began = time.monotonic()
    connection.request("GET", "/v1/zip/default?prefix=c/&compression=deflate", headers=AUTH)
    streamed = len(connection.getresponse().read())
    report("the same streamed, nothing deflated before", size / MIB / (time.monotonic() - began), "MiB/s", "4 x zip -6")
    archive, seconds = completed(server, wish)
    report(f"deflate of {size >> 20} MiB, job", size / MIB / seconds, "MiB/s", "4 x zip -6")
    report("ratio, thousandths", 1000 * archive["size"] / size, "", "that of zip -6")
    report("ratio when streamed, thousandths", 1000 * streamed / size, "", "that of zip -6")
    again = min(completed(server, wish)[1] for _ in range(5))
    report("a second archive over the same files", again * 1e3, "ms", "under 100")
    report("peak RSS", server.status_kib("VmHWM") / 1024, "MiB", "no bound")
    server.stop()
    # The same once more on one core, with nothing deflated before: jobs alone, one after the other.
    rates = {}
    for cores in ("0", "0,1"):
        server = Server(binary, os.path.join(folder, "cores" + cores[-1]), CARRACK_UPLOADS__DURABILITY="process")
        connection = server.connect()
        for number, path in enumerate(corpus(root)):
            with open(path, "rb") as f:
                status = server.call("PUT", f"/v1/files/default/c/{number:05}", f.read(), connection=connection)[0]
            assert status == 201, status
        for thread in os.listdir(f"/proc/{server.process.pid}/task"):
            os.sched_setaffinity(int(thread), {int(core) for core in cores.split(",")})
        rates[cores] = size / MIB / completed(server, wish)[1]
        report(f"peak RSS on cores {cores}", server.status_kib("VmHWM") / 1024, "MiB", "no bound")
        server.stop()
        shutil.rmtree(server.data)
    report("deflate on one core", rates["0"], "MiB/s", "no bound")
    report("two cores against one, hundredths", 100 * rates["0,1"] / rates["0"], "", "at least 180")
    shutil.rmtree(os.path.join(folder, "deflate"))


def bench_watch(binary, folder):
    """How long after a change the last of 1,000 watchers has it, by server-sent events and by WebSocket."""
    for kind in ("events", "socket"):
        watch_by(kind, binary, os.path.join(folder, "watch-" + kind))


def frame(text):
    """A text message of a client, masked with zeros (RFC 6455 section 5.2)."""
    assert len(text) < 126
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text.encode()


def watch_by(kind, binary, folder):
    server = Server(binary, folder, CARRACK_UPLOADS__DURABILITY="process", CARRACK_ARCHIVES__WORKERS="1")
    block = b"".join(b"line %d of a text\n" % n for n in range(400_000))
    for number in range(40):
        body = b"%d" % number + block
        assert server.call("PUT", f"/v1/files/default/w/{number}", body)[0] == 201
    wish = {"bucket": "default", "prefix": "w/", "compression": "deflate"}
    archive = json.loads(server.call("POST", "/v1/archives", json.dumps(wish))[1])
    assert server.call("POST", f"/v1/archives/{archive['id']}/pause")[0] == 200
    heard = []

    async def watch(ready, change):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        if kind == "events":
            writer.write(f"GET /v1/archives/{archive['id']}/events {head}\r\n".encode())
        else:
            upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            writer.write(f"GET /v1/ws {head}{upgrade}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame(json.dumps({"subscribe": ["archive:" + archive["id"]]})))
        await reader.readuntil(b"paused")
        ready.release()
        await change.wait()
        await reader.readuntil(b'"cancelled"')
        heard.append(time.monotonic())
        writer.close()

    async def run():
        ready, change = asyncio.Semaphore(0), asyncio.Event()
        watchers = [asyncio.create_task(watch(ready, change)) for _ in range(1000)]
        for _ in watchers:
            await asyncio.wait_for(ready.acquire(), 60)
        change.set()
        await asyncio.sleep(1)
        began = time.monotonic()
        path = f"/v1/archives/{archive['id']}/cancel"
        status = (await asyncio.to_thread(server.call, "POST", path))[0]
        assert status == 200, status
        await asyncio.gather(*watchers)
        return began

    began = asyncio.run(run())
    report(f"a change at the last of 1,000 watchers by {kind} (and a client in Python)", (max(heard) - began) * 1e3, "ms", "under 200")
    report(f"RSS with 1,000 watchers by {kind}, peak", server.status_kib("VmHWM") / 1024, "MiB", "no bound")
    server.stop()
    shutil.rmtree(server.data)


def bench_kill(binary, folder):
    server = Server(binary, os.path.join(folder, "kill"))
    draw, acknowledged, ready = random.Random(7), {}, []
    for round_number in range(100):
        stop = threading.Event()

        def write(index):
            connection = server.connect()
            while not stop.is_set():
                key, size = f"k/{round_number}-{index}-{random.randrange(1 << 30)}", random.choice([10, 4000, 300_000])
                body = os.urandom(size)
                try:
                    status, answer, _ = server.call("PUT", f"/v1/files/default/{key}", body, connection=connection)
                except (OSError, http.client.HTTPException):
                    return
                if status == 201:
                    acknowledged[key] = json.loads(answer)["blake3"]

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        [t.start() for t in threads]
        time.sleep(draw.uniform(0.02, 0.4))
        server.stop(signal.SIGKILL)
        stop.set()
        [t.join() for t in threads]
        server.start()
        ready.append(server.ready_seconds)
    lost = 0
    connection = server.connect()
    for key, blake3 in acknowledged.items():
        status, body, _ = server.call("GET", f"/v1/files/default/{key}?meta", connection=connection)
        lost += status != 200 or json.loads(body)["blake3"] != blake3
        status, body, response = server.call("GET", f"/v1/files/default/{key}", connection=connection)
        lost += status != 200 or len(body) != int(response.headers["Content-Length"])
    print(f"100 kills under load: {len(acknowledged)} files acknowledged")
    report("acknowledged files lost", lost, "", "0")
    report("start to ready after kill -9, worst", max(ready), "s", "under 2")
    server.stop()
    shutil.rmtree(server.data)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/carrack")
    parser.add_argument("cases", nargs="*", default=["complete", "rss", "zip", "archive", "deflate", "watch", "kill"])
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="carrack-bench-", dir=os.environ.get("BENCH_DIR"))
    try:
        for case in arguments.cases:
            globals()["bench_" + case](os.path.abspath(arguments.binary), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
