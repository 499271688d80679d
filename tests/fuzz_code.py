"""Damaged payloads of code: each must be refused by name, none may end the process. Run by `make fuzz`.

What is signed right but means nothing is tried, too, as far as the header goes: who has the key may run
code here, so what a blob does to LLVM is no question of damage.
"""

from __future__ import annotations

import argparse
import collections
import random
import struct
import time

import numexpr
import numpy as np

from code_samples import MYFUNC, SHAPES
from numpush import code
from numpush.code.envelope import unseal

RING = code.Keyring.generate()
SAMPLES = [
    code.dumps(MYFUNC, kind="ufunc", keyring=RING),
    code.dumps(MYFUNC, keyring=RING, portable=True),
    code.dumps(SHAPES, keyring=RING),
    code.dumps(numexpr.NumExpr("a + 2 * b", [("a", np.double), ("b", np.double)]), keyring=RING),
    code.dumps(len, keyring=RING),
]


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return *data* with some bits turned, bytes changed, taken out or put in, or an end lost."""
    while True:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(changed) + 1)
            if rng.randrange(4) == 0:
                at = min(at, 60)  # where the numbers are
            match rng.randrange(6):
                case 0:
                    changed[at : at + 4] = rng.randbytes(4)
                case 1:
                    del changed[at : at + rng.randrange(1, 9)]
                case 2:
                    changed[at:at] = rng.randbytes(rng.randrange(1, 9))
                case 3:
                    del changed[at:]
                case _ if at < len(changed):
                    changed[at] ^= 1 << rng.randrange(8)
            if not changed:
                break
        if changed != data:
            return bytes(changed)


def payload(rng: random.Random) -> str:
    """Damage a payload, and load it with all kinds let in."""
    try:
        code.loads(damage(rng.choice(SAMPLES), rng), keyring=RING, allow=code.KINDS)
    except code.CodeError:
        return "refused"
    return "loaded"


def header(rng: random.Random) -> str:
    """Damage a header, sign it, and read it."""
    data = rng.choice(SAMPLES)
    (size,) = struct.unpack_from("<I", data, 8)
    changed, body = damage(data[28 : 28 + size], rng), data[28 + size : -32]
    head = data[:8] + struct.pack("<IQ8s", len(changed), len(body), RING.signer)
    try:
        unseal(head + changed + body + RING.sign(head, changed, body), RING, code.KINDS)
    except code.CodeError:
        return "refused"
    return "read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    rng, counts = random.Random(args.seed), collections.Counter[str]()
    for i in range(args.n):
        counts[header(rng) if i % 10 == 0 else payload(rng)] += 1
    print(dict(counts))
    if counts["loaded"]:
        raise SystemExit("something damaged was loaded")
    for data in SAMPLES:  # it still works
        code.loads(data, keyring=RING, allow=code.KINDS)


if __name__ == "__main__":
    main()
