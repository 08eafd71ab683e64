#!/usr/bin/env python3
"""One HTTP/2 stream over TLS through a proxy that holds all bytes back for half a round trip each way: shows whether
windows and buffers keep a long line busy. Prints MiB/s down and up, with and without the delay. Python 3.9+, no packages.

    bench/h2_delay.py [--binary target/release/carrack] [--round-trip 50] [--bytes 1073741824]
"""
import argparse, asyncio, os, shutil, signal, subprocess, tempfile, time

TOKEN = "bench-root-token"
MIB = 1 << 20
CHUNK = 256 << 10
HELD_MAX = 64 * MIB


async def hold(reader, writer, seconds):
    """Copies, each byte as late as it should be, however many are on the way (up to a bound)."""
    queue, free = asyncio.Queue(), asyncio.Semaphore(HELD_MAX // CHUNK)

    async def take():
        while data := await reader.read(CHUNK):
            await free.acquire()
            queue.put_nowait((time.monotonic() + seconds, data))
        queue.put_nowait((time.monotonic() + seconds, b""))

    async def give():
        while True:
            due, data = await queue.get()
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if not data:
                return
            writer.write(data)
            await writer.drain()
            free.release()

    taking = asyncio.create_task(take())
    try:
        await give()
        writer.write_eof() if writer.can_write_eof() else None
    except OSError:
        pass  # The other side has closed.
    finally:
        taking.cancel()


async def proxy(port, seconds):
    async def connection(reader, writer):
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK)
        try:
            await asyncio.gather(hold(reader, up_writer, seconds), hold(up_reader, writer, seconds))
        except (OSError, asyncio.CancelledError):
            pass  # The client is done; what is left is the end of the program.
        up_writer.close()
        writer.close()

    return await asyncio.start_server(connection, "127.0.0.1", 0, limit=CHUNK)


async def curl(*words):
    command = ["curl", "-skf", "--http2", "-o", "/dev/null", "-w", "%{speed_download} %{speed_upload} %{http_version}",
               "-H", f"Authorization: Bearer {TOKEN}", *words]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, (command, process.returncode)
    down, up, version = out.decode().split()
    assert version == "2", version
    return float(down) / MIB, float(up) / MIB


async def measure(arguments, work, port):
    path = "/v1/files/default/f"
    for name, seconds in [("directly", None), ("proxy, no delay", 0), (f"proxy, {arguments.round_trip} ms", arguments.round_trip / 2000)]:
        at = port
        if seconds is not None:
            server = await proxy(port, seconds)
            at = server.sockets[0].getsockname()[1]
        up = (await curl("-T", f"{work}/file", f"https://127.0.0.1:{at}{path}"))[1]
        down = (await curl(f"https://127.0.0.1:{at}{path}"))[0]
        print(f"{name:<18} down {down:7.0f} MiB/s   up {up:7.0f} MiB/s", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/carrack")
    parser.add_argument("--round-trip", type=float, default=50)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    arguments = parser.parse_args()
    work = tempfile.mkdtemp(prefix="carrack-h2-")
    server = None
    try:
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost".split()
        subprocess.run([*make, "-keyout", f"{work}/key.pem", "-out", f"{work}/cert.pem"], check=True, stderr=subprocess.DEVNULL)
        block = os.urandom(MIB)
        with open(f"{work}/file", "wb") as f:
            for _ in range(arguments.bytes // MIB):
                f.write(block)
        environment = dict(os.environ, CARRACK_ROOT_TOKEN=TOKEN, CARRACK_UPLOADS__DURABILITY="process",
                           CARRACK_TLS__CERT=f"{work}/cert.pem", CARRACK_TLS__KEY=f"{work}/key.pem")
        command = [os.path.abspath(arguments.binary), "serve", "--listen", "127.0.0.1:0", "--data", f"{work}/data"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
        port = int(server.stdout.readline().strip().rsplit(":", 1)[1])
        asyncio.run(measure(arguments, work, port))
    finally:
        if server:
            server.send_signal(signal.SIGTERM)
            server.wait()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
