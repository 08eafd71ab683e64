#!/usr/bin/env python3
"""Makes the test files of groups of cases under $BENCH_DATA; what is there with the right size is kept.

    mkdata.py [D] [T] [Z] [U]

  root/big/4g.bin            4 GiB random                      D1 D4 D5 T1, source of U1 U2
  root/d2/00.bin .. 15.bin   16 x 256 MiB random               D2 T16
  root/z3/00/0000.bin ..     1,000 x 4 KiB random              D3, source of U3
  root/z2/0.bin              1 GiB random                      source of TU
  root/z1/000.bin .. 999     1,000 x 1 MiB random              Z1
  root/z2/0.bin .. 2.bin     3 x 1 GiB random                  Z2
  root/z3/                   20,000 x 4 KiB random (20 dirs)   Z3
  root/manifest/             what mod_zip is told of Z1 to Z3
"""
import os, subprocess, sys, zlib
from procs import GIB, MIB, ROOT


def random_file(path, size):
    if os.path.exists(path) and os.path.getsize(path) == size:
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # The key stream of AES-CTR does not compress, and is made at more than 1 GiB/s.
    command = ["openssl", "enc", "-aes-128-ctr", "-K", os.urandom(16).hex(), "-iv", "0" * 32, "-nosalt", "-in", "/dev/zero"]
    stream = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with open(path + ".part", "wb") as f:
        left = size
        while left:
            block = stream.stdout.read(min(left, MIB))
            if not block:
                sys.exit(f"{path}: openssl gave no more bytes")
            f.write(block)
            left -= len(block)
    stream.stdout.close()
    stream.terminate()
    stream.wait()
    os.rename(path + ".part", path)


def small_files(folder, name, count, size):
    """`count` files that differ in their first bytes."""
    block = os.urandom(size)
    for index in range(count):
        path = os.path.join(ROOT, folder, name(index))
        if os.path.exists(path) and os.path.getsize(path) == size:
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(b"%012d" % index + block[12:])


def manifest(name, folder, count):
    """A line for each of the first `count` files: CRC-32, size, where it is, what it is called."""
    path = f"{ROOT}/manifest/{name}.txt"
    if os.path.exists(path):
        return
    files = sorted(os.path.join(place, file) for place, _, files in os.walk(f"{ROOT}/{folder}") for file in files)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "w") as out:
        for file in files[:count]:
            crc = 0
            with open(file, "rb") as f:
                while block := f.read(MIB):
                    crc = zlib.crc32(block, crc)
            name = os.path.relpath(file, ROOT)
            out.write(f"{crc:08x} {os.path.getsize(file)} /{name} {name}\n")
    os.rename(path + ".part", path)


def main():
    groups = set(sys.argv[1:])
    if not groups or groups - set("DTZU"):
        sys.exit(__doc__)
    if groups & set("DTU"):
        random_file(f"{ROOT}/big/4g.bin", 4 * GIB)
    if groups & set("DT"):
        for index in range(16):
            random_file(f"{ROOT}/d2/{index:02d}.bin", 256 * MIB)
    if "Z" in groups:
        small_files("z1", lambda i: f"{i:03d}.bin", 1000, MIB)
    if groups & set("TZ"):
        for index in range(3 if "Z" in groups else 1):
            random_file(f"{ROOT}/z2/{index}.bin", GIB)
    small_files("z3", lambda i: f"{i // 1000:02d}/{i % 1000:04d}.bin", 20_000 if "Z" in groups else 1000, 4096)
    if "Z" in groups:
        for name, folder, count in ("z1", "z1", 1000), ("z2", "z2", 3), ("z3a", "z3", 15_000):
            manifest(name, folder, count)


if __name__ == "__main__":
    main()
