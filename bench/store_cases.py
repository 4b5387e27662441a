# SPDX-License-Identifier: MIT
"""bench/store_cases.py: what is asked of the stores, by how many clients, of a tree of which size; and what ours must reach.

A case is measured by one load of bench/store_load.c ("load"), or in a way of its own: "ls" is xenstore-ls of Debian's
xenstore-utils, "idle" what connections that say nothing cost. Each case has fresh servers. Of those with many nodes or watches it is
told, too, what memory one takes.
"""
from dataclasses import dataclass

OURS, REFERENCES = "ours", ("c", "ocaml")
PEERS = (OURS, *REFERENCES)
TITLES = {"ours": "domzero", "c": "xenstored", "ocaml": "oxenstored"}
CLIENTS = (1, 16, 256)
MANY = 10_000  # nodes, watches: from here on an allocator's steps do not matter in what one takes
MUST = 2.0  # times the better of the two


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    kind: str  # of store_load, or ls, idle
    clients: int = 1
    nodes: int = 1000  # below /bench/n, a hundred in each directory
    children: int = 0  # of one node
    watches: int = 0  # which match nothing, of 256 connections
    one_core: bool = False
    rings: bool = False  # clients are domains with a ring page each
    figure: str = "per_s"  # the row's rate: operations, or a fan-out's events
    goal: bool = True


def plural(n, what):
    return f"{n} {what}" + "s" * (n != 1)


# A transaction: start, a read, two writes, end.
LOADS = (("read", "reads of a node"), ("write", "writes of a node"),
         ("transaction", "transactions of 5 requests"))


def cases():
    all_ = [Case(f"{kind}-{n}", f"{what}, {plural(n, 'connection')}", kind, n) for kind, what in LOADS for n in CLIENTS]
    all_ += [Case(f"{kind}-1-core", f"{what}, 1 connection, one processor", kind, one_core=True) for kind, what in LOADS]
    all_ += [Case("list-16", "DIRECTORY of 100 children, 16 connections", "list", 16)]
    all_ += [Case(f"fan-{n}", f"events of a write that {plural(n, 'connection')} watch{'es' * (n == 1)}", "fan", n, figure="events_per_s") for n in CLIENTS]
    all_ += [Case(f"rings-{kind}-{n}", f"{what}, {plural(n, 'ring')}", kind, n, rings=True) for kind, what in LOADS for n in CLIENTS]
    all_ += [Case(f"rings-fan-{n}", f"events of a write that {plural(n, 'ring')} watch{'es' * (n == 1)}", "fan", n, figure="events_per_s", rings=True)
             for n in CLIENTS]
    all_ += [Case("ls-10000", "xenstore-ls of 10,000 nodes, nodes a second", "ls", nodes=10_000)]
    for kind in ("read", "write"):
        all_ += [Case(f"nodes-{kind}-{n}", f"{kind}s in a tree of {n} nodes, 16 connections", kind, 16, nodes=n) for n in (100, 1000, 10_000, 100_000)]
    all_ += [Case(f"watches-{n}", f"writes beside {n} other watches, 16 connections", "write", 16, watches=n) for n in (0, 1000, 10_000, 100_000)]
    all_ += [Case(f"children-{n}", f"a child comes and goes beside {n} others", "child", 1, children=n, one_core=True) for n in (10, 100, 1000, 10_000)]
    all_ += [Case("idle-256", "256 connections that say nothing", "idle", 256, goal=False)]
    return all_


@dataclass(frozen=True)
class Growth:
    """Of ours: the server's processor time for an operation of the first case over that of the last, measured side by side."""

    title: str
    cases: tuple
    must: float


def growths():
    return (Growth("watches that do not match, 0 to 100,000", ("watches-0", "watches-100000"), 0.8),)
