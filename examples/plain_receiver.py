"""A receiver of numpush objects that does not import numpush: docs/wire.md in 60 lines.

python examples/plain_receiver.py 9000 [key]      then send it arrays and numeric frames:
python -c "import numpush, numpy as np; numpush.ingest.send('tcp://127.0.0.1:9000', np.arange(5))"
"""

import hmac
import os
import socket
import struct
import sys
import zlib

import msgpack
import numpy as np


def read(sock, size):
    data = bytearray(size)
    view = memoryview(data)
    while view:
        n = sock.recv_into(view)
        if not n:
            raise EOFError("the peer ended")
        view = view[n:]
    return data


def shake_hands(sock, key):
    ours = struct.pack("<8sBB6x32s", b"\x89npush\r\n", 1, bool(key), os.urandom(32))
    sock.sendall(ours)
    theirs = read(sock, 48)
    if theirs[:9] != ours[:9] or theirs[9] != ours[9]:
        raise ValueError("no numpush link, or only one end has a key")
    if key:
        proof = hmac.digest(key, b"numpush connect" + theirs + ours, "sha256")
        if not hmac.compare_digest(proof, read(sock, 32)):
            raise ValueError("the peer has another key")
        sock.sendall(hmac.digest(key, b"numpush listen" + theirs + ours, "sha256"))


def objects(sock):
    while True:
        magic, version, kind, size, data, _ = struct.unpack("<4sBB2xI4xQQ", read(sock, 32))
        if (magic, version) != (b"\x89NPW", 1):
            raise ValueError(f"no frame: {magic}")
        header = read(sock, size + -(32 + size) % 64)[:size]
        if kind == 4:  # bye
            return
        if kind == 1:
            body = read(sock, data)
            sock.sendall(struct.pack("<4sBB2xI4xQQ32x", b"\x89NPW", 1, 2, 0, 0, 1))  # acknowledged
            yield rebuild(msgpack.unpackb(header), body)


def rebuild(header, body):
    buffers, end = [], 0
    for i, size in enumerate(header["buffers"]):
        start = -(-end // 64) * 64
        end = start + size
        buffers.append(memoryview(body)[start:end])
        if "crc32" in header and zlib.crc32(buffers[i]) != header["crc32"][i]:
            raise ValueError(f"buffer {i} is damaged")
    schema = header["schema"]
    if schema["kind"] == "ndarray":
        data = np.frombuffer(buffers[schema["data"]], schema["dtype"])
        return data.reshape(schema["shape"], order=schema["order"])
    columns = {}  # of a frame: by position
    for block in schema["blocks"]:
        values = np.frombuffer(buffers[block["data"]], block["dtype"])
        first, step = block["at"]
        for i, column in enumerate(values.reshape(block["count"], schema["rows"])):
            columns[first + i * step] = column
    return columns


def main():
    key = sys.argv[2].encode() if len(sys.argv) > 2 else None
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        print(f"listening at tcp://127.0.0.1:{server.getsockname()[1]}", flush=True)
        sock, _ = server.accept()
        with sock:
            shake_hands(sock, key)
            for obj in objects(sock):
                print(obj, flush=True)


if __name__ == "__main__":
    main()
