"""A lock that survives the death of its holder.

Several processes add to both sides of a ledger under its lock. One of them is killed (SIGKILL)
while it holds the lock, after it wrote one side and before it wrote the other. The lock is not lost
with it: the next process gets it, is told that the owner died, finds the sides unequal and repairs
them. In the end not one entry is missing and not one is counted twice.

    python examples/locks.py [--processes N] [--rounds N] [--start-method fork|spawn|forkserver]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time

import numpy as np

from numpush import SArray

DEBIT, CREDIT, HALFWAY, REPAIRS = range(4)  # fields of the ledger


def work(ledger: SArray, n_rounds: int) -> None:
    """Add one to both sides, *n_rounds* times."""
    for _ in range(n_rounds):
        with ledger.lock as guard:
            if guard.owner_died:
                # Whoever held the lock died inside this block. It writes DEBIT first, so CREDIT
                # counts what was finished.
                ledger[DEBIT] = ledger[CREDIT]
                ledger[REPAIRS] += 1
            ledger[DEBIT] += 1
            ledger[CREDIT] += 1


def work_and_stop_halfway(ledger: SArray, n_rounds: int) -> None:
    """The same, and then one round more that is never finished."""
    work(ledger, n_rounds)
    with ledger.lock:
        ledger[DEBIT] += 1
        ledger[HALFWAY] = 1
        time.sleep(3600)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--start-method", default=None)
    args = parser.parse_args()

    context = multiprocessing.get_context(args.start_method)
    ledger = SArray(np.zeros(4, "i8"))
    victim = context.Process(target=work_and_stop_halfway, args=(ledger, args.rounds), daemon=True)
    others = [
        context.Process(target=work, args=(ledger, args.rounds), daemon=True)
        for _ in range(args.processes)
    ]
    start = time.perf_counter()
    for process in [victim, *others]:
        process.start()
    while not ledger[HALFWAY]:  # the victim waits with the lock, and the others wait for it
        time.sleep(0.001)
    sides = f"debit {ledger[DEBIT]}, credit {ledger[CREDIT]}"
    print(f"killing process {victim.pid}, which holds the lock: {sides}")
    os.kill(victim.pid, signal.SIGKILL)
    for process in [victim, *others]:
        process.join()
    work(ledger, 1)  # should all others have been through before it was killed, the repair is ours

    n = args.rounds * (args.processes + 1) + 1
    seconds = time.perf_counter() - start
    print(f"repaired {ledger[REPAIRS]} time by the next holder; {n} rounds took {seconds:.1f} s")
    print(f"debit {ledger[DEBIT]}, credit {ledger[CREDIT]}, wanted {n}")
    is_exact = ledger[DEBIT] == ledger[CREDIT] == n and ledger[REPAIRS] == 1
    print("exact" if is_exact else "WRONG")
    return 0 if is_exact else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
