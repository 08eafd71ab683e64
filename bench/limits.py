#!/usr/bin/env python3
"""Measures limits and the edge on the release binary: how exact rates are, how fair shares are, what metering costs where
nothing is limited, and what thousands of idle and dribbling clients cost. Prints one line per figure with the bound it is
held against. Python 3.9+, no packages; needs 21,000 descriptors for `crowd`.

    bench/limits.py [--binary target/release/carrack] [--before OTHER_BINARY] [rate share cost crowd nodes]

`nodes` is a user's cap over two nodes, also while Redis is away: it starts `carrack cluster`, which says what it needs.
"""
import argparse, glob, http.client, json, os, re, resource, select, shutil, signal, socket, statistics, subprocess, tempfile, threading, time

TOKEN = "bench-root-token"
MB = 1_000_000
FILE = "/v1/files/default/f"
FILE_BYTES = 512 * MB


class Caller:
    """Whoever calls a server on `port` as the administrator, whose token is `root`."""

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request(method, path, body=body, headers={"Authorization": "Bearer " + self.root})
        response = connection.getresponse()
        return response.status, response.read()

    def token(self, subject):
        return json.loads(self.call("POST", "/v1/tokens", json.dumps({"subject": subject, "role": "user"}))[1])["token"]


class Server(Caller):
    root = TOKEN

    def __init__(self, binary, data, **limits):
        env = dict(os.environ, CARRACK_ROOT_TOKEN=TOKEN, CARRACK_SERVER__HEADER_TIMEOUT="300s", CARRACK_TELEMETRY__LOG="error")
        env.update({"CARRACK_LIMITS__" + name: str(value) for name, value in limits.items()})
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--data", data]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
        self.port = int(self.process.stdout.readline().strip().rsplit(":", 1)[1])

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_kib(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def head(token, path=FILE, more=""):
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{more}\r\n".encode()


class Reader:
    """Reads over so many connections, of one server or of several in turn; counts what comes."""

    def __init__(self, token, connections, *servers):
        self.got, self.sockets = 0, []
        for index in range(connections):
            client = socket.create_connection(("127.0.0.1", servers[index % len(servers)].port))
            client.sendall(head(token))
            self.sockets.append(client)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        buffer, poll = bytearray(1 << 20), select.epoll()
        by_number = {client.fileno(): client for client in self.sockets}
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        while by_number:
            for number, _ in poll.poll(1):
                count = by_number[number].recv_into(buffer)
                self.got += count
                if count == 0:
                    poll.unregister(number)
                    del by_number[number]

    def stop(self):
        for client in self.sockets:
            client.shutdown(socket.SHUT_RDWR)
        self.thread.join()


def report(name, value, unit, bound):
    print(f"{name:<66} {value:>10.2f} {unit:<5} (bound: {bound})", flush=True)


def rates(readers, seconds, settle=1.5):
    time.sleep(settle)
    began, before = time.monotonic(), [reader.got for reader in readers]
    time.sleep(seconds)
    took = time.monotonic() - began
    found = [(reader.got - got) / took for reader, got in zip(readers, before)]
    for reader in readers:
        reader.stop()
    return found


def with_server(options, **limits):
    data = tempfile.mkdtemp(prefix="carrack-bench-", dir=options.folder)
    server = Server(options.binary, data, **limits)
    assert server.call("PUT", FILE, bytes(FILE_BYTES))[0] == 201
    return server


def rate(options):
    cap = 20 * MB
    server = with_server(options, ROLES__USER__BANDWIDTH_PER_USER=cap)
    for connections in (1, 4, 16):
        token = server.token(f"alice{connections}")
        found = rates([Reader(token, connections, server)], 8)[0]
        report(f"a user's cap of 20 MB/s over {connections} connections: off by", abs(found / cap - 1) * 100, "%", "3")
    server.stop()


def share(options):
    cap = 40 * MB
    server = with_server(options, ROLES__USER__BANDWIDTH=cap)
    one, many = rates([Reader(server.token("alice"), 1, server), Reader(server.token("bob"), 16, server)], 10)
    report("two users, 1 and 16 connections, under 40 MB/s: the one has", one / (cap / 2) * 100, "%", "90 to 110 of a half")
    report("and the other", many / (cap / 2) * 100, "%", "90 to 110 of a half")
    server.stop()


class Node(Caller):
    def __init__(self, port, root):
        self.port, self.root = port, root


class Cluster:
    """`carrack cluster` with these limits: two nodes with everything they share."""

    def __init__(self, binary, **limits):
        env = {"CARRACK_LIMITS__" + name: str(value) for name, value in limits.items()}
        with socket.create_server(("127.0.0.1", 0)) as free:
            listen = "127.0.0.1:%d" % free.getsockname()[1]
        command = [binary, "cluster", "--listen", listen]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ, **env), text=True)
        said = list(iter(lambda: self.process.stdout.readline().strip(), ""))
        after = lambda name: [line.split()[1] for line in said if line.startswith(name)]
        self.redis_port = int(after("Redis")[0].rsplit(":", 1)[1])
        groups = [re.search(r"kill -9 -- -(\d+)", line).group(1) for line in said if line.startswith("node")]
        self.nodes = [Node(self.port_of(group), after("token")[0]) for group in groups]
        self.redis = None

    @staticmethod
    def port_of(group):
        """Where the node of this process group listens."""
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(path) as stat, open(path.replace("stat", "cmdline")) as command:
                    words = command.read().split("\0")
                    if stat.read().rsplit(")", 1)[1].split()[2] == group and words[1:2] == ["serve"]:
                        return int(words[words.index("--listen") + 1].rsplit(":", 1)[1])
            except OSError:
                pass  # It has ended meanwhile.
        raise SystemExit(f"no node in process group {group}")

    def stop_redis(self):
        with socket.create_connection(("127.0.0.1", self.redis_port)) as redis:
            redis.sendall(b"SHUTDOWN NOSAVE\r\n")
            redis.recv(1)

    def start_redis(self):
        words = ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.redis = subprocess.Popen([shutil.which("redis-server"), *words], stdout=subprocess.DEVNULL)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        if self.redis:
            self.redis.kill()
            self.redis.wait()


def nodes(options):
    cap = 8 * MB
    cluster = Cluster(options.binary, ROLES__USER__BANDWIDTH_PER_USER=cap)
    one, two = cluster.nodes
    assert one.call("PUT", FILE, bytes(160 * MB))[0] == 201

    def measure(what, connections, bound, of=cap):
        token = one.token(f"carol-{what}-{connections}")
        found = rates([Reader(token, connections, one, two)], 10, settle=2)[0]
        report(f"a user's cap of 8 MB/s over two nodes, {connections} connections{what}: off by", abs(found / of - 1) * 100, "%", bound)

    for connections in (1, 4, 16):
        measure("", connections, "5")
    cluster.stop_redis()
    time.sleep(3)
    # Each node has 1.2 times its even half.
    measure(", Redis away", 1, "5 of 0.6 of it", of=0.6 * cap)
    measure(", Redis away", 16, "5 of 1.2 of it", of=1.2 * cap)
    cluster.start_redis()
    time.sleep(3)
    for connections in (1, 16):
        measure(", Redis back", connections, "5")
    cluster.stop()


def throughput(binary, options):
    """Bytes per second, and CPU seconds per GB, of whole downloads one after the other."""
    server = with_server(argparse.Namespace(binary=binary, folder=options.folder))
    client, buffer = socket.create_connection(("127.0.0.1", server.port)), bytearray(1 << 20)
    best, cpu = 0, []
    for _ in range(8):
        began, before, left = time.monotonic(), server.cpu_seconds(), FILE_BYTES
        client.sendall(head(TOKEN))
        while left > 0:
            left -= client.recv_into(buffer)
        best = max(best, FILE_BYTES / (time.monotonic() - began))
        cpu.append((server.cpu_seconds() - before) / FILE_BYTES * 1e9)
    client.close()
    server.call("PUT", "/v1/files/default/small", bytes(4096))
    connection, small = http.client.HTTPConnection("127.0.0.1", server.port), 4000
    before = server.cpu_seconds()
    for _ in range(small):
        connection.request("GET", "/v1/files/default/small", headers={"Authorization": "Bearer " + TOKEN})
        connection.getresponse().read()
    per_request = (server.cpu_seconds() - before) / small * 1e6
    server.stop()
    return best, statistics.median(cpu), per_request


def cost(options):
    if not options.before:
        print("cost: name a binary without metering by --before")
        return
    sides = {True: [], False: []}
    for turn in range(4):
        for is_new in ((True, False) if turn % 2 else (False, True)):
            sides[is_new].append(throughput(options.binary if is_new else options.before, options))
    new, old = ([f(column) for f, column in zip((max, min, min), zip(*sides[side]))] for side in (True, False))
    report("no limit set, 512 MB downloads: throughput against before", (new[0] / old[0] - 1) * 100, "%", "-3")
    report("and CPU per byte", (new[1] / old[1] - 1) * 100, "%", "+3")
    report("and CPU per request of 4 KiB", (new[2] / old[2] - 1) * 100, "%", "+3")


def p99_ms(server, seconds):
    connection, times, end = http.client.HTTPConnection("127.0.0.1", server.port), [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        connection.request("GET", "/v1/files/default/small", headers={"Authorization": "Bearer " + TOKEN})
        connection.getresponse().read()
        times.append((time.monotonic() - began) * 1000)
    return statistics.quantiles(times, n=100)[98]


def crowd(options):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    count = 10_000
    kinds = {
        "idle after a request": (head(TOKEN, "/livez"), b""),
        "that dribble a head": (b"GET /livez HTTP/1.1\r\nHost: x\r\nA: ", b"x"),
        "that dribble a body": (f"PUT {FILE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9999999\r\n\r\n".encode(), b"x"),
    }
    for name, (beginning, drop) in kinds.items():
        data = tempfile.mkdtemp(prefix="carrack-bench-", dir=options.folder)
        server = Server(options.binary, data)
        server.call("PUT", "/v1/files/default/small", bytes(4096))
        alone = p99_ms(server, 5)
        before, clients, stop = server.rss_kib(), [], threading.Event()
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(beginning)
            clients.append(client)

        def dribble():
            while drop and not stop.is_set():
                for index in range(0, count, 10):
                    for client in clients[index : index + 10]:
                        try:
                            client.send(drop)
                        except OSError:
                            pass
                    time.sleep(0.005)

        thread = threading.Thread(target=dribble, daemon=True)
        thread.start()
        time.sleep(4)
        report(f"10,000 connections {name}: memory of each", (server.rss_kib() - before) / count, "KiB", "20")
        report("and a good client's p99, times that of before", p99_ms(server, 5) / alone, "", "2")
        stop.set()
        thread.join()
        for client in clients:
            client.close()
        server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/carrack")
    parser.add_argument("--before")
    parser.add_argument("cases", nargs="*", default=["rate", "share", "cost", "crowd"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="carrack-bench-") as folder:
        options.folder = folder
        for case in options.cases:
            {"rate": rate, "share": share, "cost": cost, "crowd": crowd, "nodes": nodes}[case](options)


if __name__ == "__main__":
    main()
