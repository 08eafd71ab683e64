"""The cases: what one repetition does with one target, and the record that it leaves."""
import json, os, resource, select, socket, statistics, subprocess, time
from procs import (BENCH, ENV, GIB, MIB, ROOT, TOOLS, cpu, disk_read_mib, machine_cpu, memory_kib, reset_peak, socket_memory_kib,
                   user_memory_kib)

CIPHER = "TLS_AES_256_GCM_SHA384"
SLOW_CLIENTS, SLOW_RATE = 200, 64 << 10
IDLE_CONNECTIONS = 10_000
# A server may give memory back some time after the last request; nobody sees a connection as idle any earlier.
IDLE_SETTLE_SECONDS = 4

# What is warm in the page cache beforehand, the unit of the rate, and whether each repetition has a freshly started
# server (where its memory is the figure).
CASES = {
    "D1": dict(title="4 GiB, one connection, curl", warm=["big"], unit="GiB/s"),
    "D1t": dict(title="the same, to a client that discards the bytes in the kernel", warm=["big"], unit="GiB/s"),
    "D2": dict(title="16 connections, each a file of 256 MiB", warm=["d2"], unit="GiB/s"),
    "D3": dict(title="files of 4 KiB, 64 keep-alive connections", warm=["z3/00"], unit="req/s"),
    "D4": dict(title="random ranges of 64 KiB of 4 GiB, 64 keep-alive connections", warm=["big"], unit="req/s"),
    "D5": dict(title="200 slow clients (64 KiB/s each) and one fast, 4 GiB", warm=["big"], unit="GiB/s", fresh=True),
    "I1": dict(title="10,000 idle keep-alive connections", warm=["z3/00"], unit="KiB each", fresh=True),
    "T1": dict(title="TLS 1.3, 4 GiB, one connection", warm=["big"], unit="GiB/s"),
    "T16": dict(title="TLS 1.3, 16 connections, each a file of 256 MiB", warm=["d2"], unit="GiB/s"),
    "T1h": dict(title="TLS 1.3, 4 GiB, one stream of HTTP/2", warm=["big"], unit="GiB/s"),
    "TU": dict(title="TLS 1.3, PUT of 1 GiB", warm=["z2"], unit="GiB/s"),
    "TUh": dict(title="TLS 1.3, PUT of 1 GiB over HTTP/2", warm=["z2"], unit="GiB/s"),
    "Z1": dict(title="ZIP stored, 1,000 x 1 MiB", warm=["z1"], unit="GiB/s"),
    "Z2": dict(title="ZIP stored, 3 x 1 GiB", warm=["z2"], unit="GiB/s"),
    "Z3": dict(title="ZIP stored, 20,000 x 4 KiB", warm=["z3"], unit="GiB/s"),
    "U1": dict(title="one tus upload of 2 GiB", warm=["big"], unit="GiB/s"),
    "U2": dict(title="8 tus uploads of 256 MiB at once", warm=["big"], unit="GiB/s"),
    "U3": dict(title="10,000 tus uploads of 4 KiB, 16 connections", warm=["z3/00"], unit="uploads/s"),
    "U1p": dict(title="one PUT of 2 GiB", warm=["big"], unit="GiB/s"),
    "U2p": dict(title="8 PUTs of 256 MiB at once", warm=["big"], unit="GiB/s"),
    "U3p": dict(title="10,000 PUTs of 4 KiB, 16 connections", warm=["z3/00"], unit="uploads/s"),
}
VARIANTS = {"U1": {"whole": 0, "64MiB": 64 * MIB, "8MiB": 8 * MIB}, "U3": {"post+patch": 0, "cwu": 1}}


class Failed(Exception):
    pass


def run_clients(commands, timeout=180, **environment):
    """Runs load generators side by side: their output, the seconds until the last ended, their CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    running = [subprocess.Popen(command, env=dict(ENV, **environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True) for command in commands]
    outputs = [process.communicate(timeout=timeout) for process in running]
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for process, (out, error) in zip(running, outputs):
        if process.returncode:
            raise Failed((error + out)[-300:])
    return outputs[0][0], seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def last_json(out):
    return json.loads(next(line for line in reversed(out.split("\n")) if "{" in line).removeprefix("JSON "))


def curl(target, case):
    """One connection by curl, as users have it."""
    write = '{"bytes":%{size_download},"wall_s":%{time_total}}'
    out, _, used = run_clients([["curl", "-sS", "--fail", "-o", "/dev/null", "-w", write, *target.header_arguments("-H"), target.urls[0]]])
    return dict(json.loads(out), client_cpu_s=used)


def tls(protocol, upload=False):
    """curl processes side by side, one per URL, all with the same cipher."""
    def run(target, case):
        common = ["curl", "-sSk", "--fail", protocol, "--tlsv1.3", "--tls13-ciphers", CIPHER, *target.header_arguments("-H")]
        send = ["-T", f"{ROOT}/z2/0.bin"] if upload else []
        _, seconds, used = run_clients([[*common, *send, "-o", "/dev/null", url.replace("{}", "0")] for url in target.urls])
        size = GIB if upload else 4 * GIB
        return dict(bytes=size, wall_s=seconds, client_cpu_s=used)
    return run


def sink(mode):
    """The discarding client: `read` copies the bytes as any client does, `trunc` leaves them to the kernel."""
    def run(target, case):
        out, _, used = run_clients([[f"{TOOLS}/sink", "--mode", mode, *target.header_arguments("--header"), *target.urls]])
        return dict(last_json(out), client_cpu_s=used)
    return run


def wrk(script):
    def run(target, case):
        paths = os.path.join(target.work, "paths")
        with open(paths, "w") as f:
            f.writelines("/" + url.split("/", 3)[3] + "\n" for url in target.urls)
        command = ["wrk", "-t2", "-c64", "-d3s", "--latency", "-s", f"{BENCH}/lua/{script}", *target.header_arguments("-H"), target.urls[0]]
        out, _, used = run_clients([command], BENCH_PATHS=paths, BENCH_SIZE=str(4 * GIB))
        figures = last_json(out)
        if figures["errors"]:
            raise Failed(f"{figures['errors']} of {figures['requests']} requests failed")
        return dict(figures, client_cpu_s=used)
    return run


def get(target, url, more=""):
    """A GET on a connection of its own, which is returned open, with the body read to its end."""
    _, _, host, path = url.split("/", 3)
    name, port = host.rsplit(":", 1)
    connection = socket.create_connection((name, int(port)))
    head = "".join(f"{header}\r\n" for header in target.headers)
    connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n{head}{more}\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += receive(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if lines[0].split()[1] not in (b"200", b"206"):
        raise Failed(lines[0].decode())
    left = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")) - len(body)
    while left > 0:
        left -= len(receive(connection))
    return connection


def receive(connection):
    data = connection.recv(65536)
    if not data:
        raise Failed("closed before the end of the answer")
    return data


def slow_and_fast(target, case):
    """Memory while only the slow clients are there; the fast client's speed beside them, and alone before and after."""
    get(target, target.urls[0], "Range: bytes=0-0\r\n").close()
    time.sleep(0.3)
    user, kernel = user_memory_kib(target.pids()), socket_memory_kib()
    alone = [sink("read")(target, case)]
    slow = subprocess.Popen([f"{TOOLS}/sink", "--slow", str(SLOW_RATE), "--conns", str(SLOW_CLIENTS), "--duration", "60", "--until-eof", "1",
                             *target.header_arguments("--header"), target.urls[0]],
                            env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        slow.stdout.readline()
        time.sleep(1)
        used, began = cpu(target.pids()), time.monotonic()
        time.sleep(1)
        slow_cpu = (cpu(target.pids()) - used) / (time.monotonic() - began)
        user, kernel = user_memory_kib(target.pids()) - user, socket_memory_kib() - kernel
        fast = sink("read")(target, case)
    finally:
        out, _ = slow.communicate(timeout=70)
    slow_figures = last_json(out)
    if slow_figures["closed_early"]:
        raise Failed(f"{slow_figures['closed_early']} slow clients were cut off")
    alone.append(sink("read")(target, case))
    alone_rate = statistics.mean(one["bytes"] / one["wall_s"] for one in alone)
    return dict(fast, kept=fast["bytes"] / fast["wall_s"] / alone_rate, slow_cpu_pct=slow_cpu * 100,
                slow_user_kib=user / SLOW_CLIENTS, slow_kernel_kib=kernel / SLOW_CLIENTS,
                slow_rate=slow_figures["rate_per_conn"])


def idle(target, case):
    """Connections that have had one answer each, and then say nothing."""
    get(target, target.urls[0]).close()
    time.sleep(0.3)
    before = user_memory_kib(target.pids())
    began = time.monotonic()
    connections = []
    try:
        for _ in range(IDLE_CONNECTIONS):
            connections.append(get(target, target.urls[0]))
        seconds = time.monotonic() - began
        time.sleep(IDLE_SETTLE_SECONDS)
        # Nothing was sent on any of them meanwhile, so one that can be read was closed.
        poll = select.poll()
        for connection in connections:
            poll.register(connection, select.POLLIN)
        if closed := len(poll.poll(0)):
            raise Failed(f"{closed} of {IDLE_CONNECTIONS} connections were closed")
        return dict(idle_kib=(user_memory_kib(target.pids()) - before) / IDLE_CONNECTIONS, wall_s=seconds, bytes=0, client_cpu_s=0)
    finally:
        for connection in connections:
            connection.close()


def upload(target, case):
    put, source = case.endswith("p"), f"{ROOT}/big/4g.bin"
    kind, _, variant = case.partition(":")
    command = [f"{TOOLS}/upload", "--url", target.urls[0], "--proto", "put" if put else "tus"]
    if kind.startswith("U1"):
        command += ["--file", source, "--size", str(2 * GIB), "--chunk", str(VARIANTS["U1"].get(variant, 0)), "--head", "0" if put else "1"]
    elif kind.startswith("U2"):
        command += ["--file", source, "--size", str(256 * MIB), "--conns", "8", "--count", "8"]
    else:
        command += ["--file", f"{ROOT}/z3/00/0000.bin", "--size", "4096", "--conns", "16", "--count", os.environ.get("BENCH_U3", "10000"),
                    "--cwu", str(VARIANTS["U3"].get(variant, 0))]
    out, _, used = run_clients([command + target.header_arguments("--header")])
    return dict(last_json(out), client_cpu_s=used)


RUN = {"D1": curl, "D1t": sink("trunc"), "D2": sink("read"), "D3": wrk("rotate.lua"), "D4": wrk("range.lua"), "D5": slow_and_fast,
       "I1": idle, "T1": tls("--http1.1"), "T16": tls("--http1.1"), "T1h": tls("--http2"), "TU": tls("--http1.1", upload=True),
       "TUh": tls("--http2", upload=True), "Z1": sink("read"), "Z2": sink("read"), "Z3": sink("read")}
KEPT = ("requests", "uploads", "p50_ms", "p99_ms", "kept", "slow_cpu_pct", "slow_user_kib", "slow_kernel_kib", "slow_rate", "idle_kib")


def repetition(target, case, variant):
    """One repetition: the figures of the client beside what the server and the machine spent meanwhile."""
    record = dict(kind="run", case=case, variant=variant, target=target.name, version=target.version)
    try:
        if case[0] == "U":
            target.must("t_clean")
        time.sleep(0.05)
        pids = target.pids()
        reset_peak(pids)
        used, (busy, stolen), read, began = cpu(pids), machine_cpu(), disk_read_mib(), time.monotonic()
        figures = RUN.get(case, upload)(target, f"{case}:{variant}" if variant else case)
        pids, seconds = target.pids(), time.monotonic() - began
        used, (busy_after, stolen_after), read = cpu(pids) - used, machine_cpu(), disk_read_mib() - read
    except (Failed, RuntimeError, OSError, ValueError, StopIteration, subprocess.SubprocessError) as error:
        return dict(record, ok=False, error=repr(error)[:400])
    gib = figures["bytes"] / GIB
    record.update(ok=True, wall_s=figures["wall_s"], bytes=figures["bytes"], server_cpu_s=round(used, 3),
                  client_cpu_s=round(figures["client_cpu_s"], 3), disk_read_mib=round(read), peak_rss_mib=round(memory_kib(pids, "VmHWM") / 1024, 1),
                  **{key: figures[key] for key in KEPT if key in figures})
    if case not in ("D5", "I1"):  # their clients run beside the one that is measured
        record["foreign_share"] = round(max(0, busy_after - busy - used - figures["client_cpu_s"]) / (seconds * os.cpu_count()), 4)
    record["steal_share"] = round((stolen_after - stolen) / (seconds * os.cpu_count()), 4)
    each = figures.get("requests") or figures.get("uploads")
    if CASES[case]["unit"] == "GiB/s":
        record.update(rate=gib / figures["wall_s"], cpu=used / gib)
        if case == "D5":  # the CPU time covers the slow clients and three fast ones
            del record["cpu"]
    elif case == "I1":
        record["rate"] = record["idle_kib"]
    else:
        record.update(rate=each / figures["wall_s"], cpu=used * 1e6 / each)
    return record
