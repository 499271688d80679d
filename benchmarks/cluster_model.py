"""What a cluster of many nodes would see of numpush.adapters.dask: a calculation, not a measurement.

Moves between workers of one node become handles; those between nodes stay as fast as the network. So
what a job gains depends on how many of its moves stay on a node, and on how much of its time moves take.

Assumed: speeds as `benchmarks/dask_adapter.py` finds them (--dask, --handle), a network of so many
Gbit/s that all workers of a node share and use at a time, moves that go to any worker alike (the worst
case: Dask prefers workers that have the data), and nothing that overlaps.
"""

from __future__ import annotations

import argparse


def share_on_node(nodes: int, workers: int) -> float:
    """Return which share of moves stays on its node when every other worker is as likely."""
    total = nodes * workers
    return (workers - 1) / (total - 1) if total > 1 else 0.0


def seconds_per_gib(local: float, gbit: float, dask: float, on_node: float) -> float:
    """Return the seconds that moving a GiB takes a worker: *local* on its node, else the slower of
    its part of the network and of Dask's own code (*dask*), in seconds per GiB.
    """
    network = 8.0 * 1.0737 / gbit
    return on_node * local + (1 - on_node) * max(network, dask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dask", type=float, default=0.8, help="seconds that Dask takes for a GiB on one node"
    )
    parser.add_argument("--handle", type=float, default=0.04, help="the same, as handles")
    parser.add_argument("--workers", type=int, default=16, help="on each node")
    parser.add_argument(
        "--gbit", type=float, default=25.0, help="of a node's network, in each direction"
    )
    parser.add_argument(
        "--gib", type=float, default=4.0, help="read by all workers of a node: a table to join with"
    )
    args = parser.parse_args()
    print(
        f"{args.workers} workers on each node, {args.gbit:g} Gbit/s for all of them; on a node Dask takes "
        f"{args.dask:g} s for a GiB, a handle {args.handle:g} s.\n"
    )
    print(
        "| nodes | moves that stay on a node | s per GiB moved, Dask | with handles | job of half moving: "
        "times as fast | if Dask finds 3 of 4 on the node | memory of a table that all read, Dask | shared |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for nodes in (1, 2, 4, 10, 30, 100):
        share = share_on_node(nodes, args.workers)
        mine = args.gbit / args.workers
        dask = seconds_per_gib(args.dask, mine, args.dask, share)
        ours = seconds_per_gib(args.handle, mine, args.dask, share)
        near = max(share, 0.75)
        job = 1 / (0.5 + 0.5 * ours / dask)
        found = 1 / (
            0.5
            + 0.5
            * seconds_per_gib(args.handle, mine, args.dask, near)
            / seconds_per_gib(args.dask, mine, args.dask, near)
        )
        print(
            f"| {nodes} | {share:.1%} | {dask:.2f} | {ours:.2f} | {job:.2f} | {found:.2f} | "
            f"{nodes * args.workers * args.gib:.0f} GiB | {nodes * args.gib:.0f} GiB |"
        )


if __name__ == "__main__":
    main()
