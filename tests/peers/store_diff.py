# SPDX-License-Identifier: MIT
"""tests/peers/store_diff.py DIR: the same script asked of three stores, ours, xenstored in C and oxenstored; each answer, each event and
the tree in the end are compared, and a difference that no row of store_rows.py explains fails.

  --seed N --steps N    which script, and how much of it
  --episode N           only that one, with all that it does: what a failure says to run
  --failures N          how many unexplained differences end the run; --brief: of each only the last two steps
  --servers a,b         some of: ours, c, ocaml, ours-ocaml (ours with --store-answers=ocaml)

Each pair of servers is compared on its own, and not any more in an episode in which a difference left two trees, sets of watches or
permissions that are not the same: the next begins anew."""
import argparse, collections, os, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from store_rows import PAIRS, explain
from store_script import BEGIN, CONNECTIONS, GUESTS, ROOTS, SPARE, TX_UNKNOWN, Episode, text
from store_wire import NAMES, OPS, Gone, Server

EPISODE_STEPS = 80
SETTLE_SECONDS = (0.005, 0.05, 0.5)  # what was told to one and not to the other may be on its way
SERVERS = {"ours": ("ours", ()), "c": ("c", ()), "ocaml": ("ocaml", ()), "ours-ocaml": ("ours", ("--store-answers=ocaml",))}


class World:
    """One server in one episode: its connections, and its ids of the script's transactions."""

    def __init__(self, server):
        self.server, self.tx, self.connections = server, {}, {"dom0": server.connect(), "dom0b": server.connect()}
        dom0 = self.connections["dom0"]
        for root in ROOTS:
            dom0.ask(OPS["RM"], root.encode() + b"\0")
        for special in ("@introduceDomain", "@releaseDomain") if server.kind == "ocaml" else ():  # nodes, that may be gone
            dom0.ask(OPS["WRITE"], special.encode() + b"\0")
        for domid in GUESTS:
            self.connections[f"guest{domid}"] = server.guest(dom0, domid)
        for s in BEGIN:
            answer = self.ask(s)
            assert answer[1] == b"OK\0", (server.name, text(s), answer)

    def close(self):
        """False: the server is not there any more."""
        try:
            for domid in (*GUESTS, SPARE):
                self.connections["dom0"].ask(OPS["RELEASE"], b"%d\0" % domid)
        except Gone:
            return False
        for c in self.connections.values():
            c.close()
        return True

    def ask(self, s):
        """(name of the operation or of the error, payload)"""
        payload = self.server.introduce_payload(SPARE) if s.payload is None else s.payload
        tx = self.tx.get(s.tx, TX_UNKNOWN) if isinstance(s.tx, str) else s.tx
        try:
            kind, answer = self.connections[s.who].ask(s.op, payload, tx, pushed=not payload and self.server.kind == "ocaml")
        except Gone as e:
            return "GONE", str(e).encode()
        if kind == OPS["ERROR"]:
            return answer.rstrip(b"\0").decode(errors="replace"), b""
        if s.names and kind == OPS["TRANSACTION_START"]:
            self.tx[s.names] = int(answer[:-1])
            answer = b"an id"
        if kind == OPS["DIRECTORY_PART"]:
            answer = b"generation" + answer[answer.index(b"\0") :]  # each server counts in its own way
        return NAMES.get(kind, str(kind)), answer

    def told(self, who):
        try:
            return self.connections[who].drain()
        except Gone as e:
            return [b"GONE " + str(e).encode()]

    def tree(self):
        """[(path, value, permissions)], children in their order."""
        found, todo, dom0 = [], ["/"], self.connections["dom0"]
        while todo:
            path = todo.pop()
            ask = lambda op: dom0.ask(OPS[op], path.encode() + b"\0")[1]
            names = [n.decode() for n in ask("DIRECTORY").split(b"\0")[:-1]]
            todo += [path.rstrip("/") + "/" + n for n in reversed(names) if not n.startswith("@")]
            found.append((path, ask("READ"), ask("GET_PERMS")))
        return found


class Changes:
    """Which of the script's transactions were not alone (something was changed outside of one since its start), which met a quota, and
    whether a guest has made a node."""
    CHANGING = {OPS[n] for n in ("WRITE", "MKDIR", "RM", "SET_PERMS", "TRANSACTION_END", "INTRODUCE", "RELEASE", "SET_TARGET")}

    def __init__(self):
        self.count, self.at_start, self.refused, self.owners = 0, {}, set(), False

    def note(self, s, answers):
        if s.names:
            self.at_start[s.names] = self.count
        if s.tx and any(a[0] == "ENOSPC" for a in answers):
            self.refused.add(s.tx)
        if CONNECTIONS[s.who] and s.op in (OPS["WRITE"], OPS["MKDIR"]) and any(a[1] == b"OK\0" for a in answers):
            self.owners = True
        ends = s.op == OPS["TRANSACTION_END"]
        if s.op in self.CHANGING and (ends or s.tx == 0) and any(a[1] == b"OK\0" for a in answers):
            self.count += 1

    def kinds(self, s):
        """What rows may say of an answer to this step."""
        kinds = {"answer"}
        if s.tx in self.at_start and self.at_start[s.tx] != self.count:
            kinds.add("disturbed")
        if s.tx in self.refused:
            kinds.add("refused")
        if self.owners:
            kinds.add("owners")
        return kinds


class Comparison:
    """What was found of one pair of servers."""

    def __init__(self, pair):
        self.pair, self.same, self.explained, self.unexplained = pair, 0, collections.Counter(), []
        self.together = True  # in this episode, until now

    def compare(self, kinds, s, left, right, trail):
        """`kinds`: of the difference that this would be; the rows of store_rows.py have one each."""
        if left == right:
            self.same += 1
            return
        row = explain(self.pair, kinds, s, left, right)
        if row:
            self.explained[row.why] += 1
            self.together = not row.parts
            return
        self.together = False
        where = f"{'/'.join(sorted(kinds))} {self.pair[0]}: {left!r:.300}  {self.pair[1]}: {right!r:.300}"
        self.unexplained.append((where, list(trail)))


class Differ:
    def __init__(self, args):
        self.args = args
        self.servers, self.lives = {}, collections.Counter()
        self.comparisons = [Comparison(p) for p in PAIRS if set(p) <= set(args.servers)]
        self.steps = 0

    def start(self, name):
        kind, options = SERVERS[name]
        self.lives[name] += 1
        self.servers[name] = Server(name, kind, os.path.join(self.args.directory, f"{name}.{self.lives[name]}"), options)

    def stop(self):
        for server in self.servers.values():
            server.stop()

    def events_compare(self, worlds, s, owners, trail):
        """What each connection was told by this step, by all servers that are still compared."""
        settled = lambda c, told: told[c.pair[0]] == told[c.pair[1]] or explain(c.pair, kinds, s, told[c.pair[0]], told[c.pair[1]])
        for who in CONNECTIONS:
            kinds = {"events", "events of guests"} if CONNECTIONS[who] else {"events"}
            kinds |= {"owners in events"} if owners else set()
            kinds |= {"events of a target's"} if who == "guest5" else set()
            worlds = {name: w for name, w in worlds.items() if any(c.together and name in c.pair for c in self.comparisons)}
            told = {name: w.told(who) for name, w in worlds.items()}
            for seconds in SETTLE_SECONDS:
                if all(settled(c, told) for c in self.comparisons if c.together):
                    break
                time.sleep(seconds)
                for name, w in worlds.items():
                    told[name] += w.told(who)
            for c in self.comparisons:
                if c.together and (told[c.pair[0]] or told[c.pair[1]]):
                    c.compare(kinds, s, told[c.pair[0]], told[c.pair[1]], trail + [f"told to {who}"])

    def episode(self, number):
        worlds = {name: World(server) for name, server in self.servers.items()}
        changes = Changes()
        script = Episode(self.args.seed, number, EPISODE_STEPS)
        trail = [f"episode {number}, {script.flavour}"]
        for c in self.comparisons:
            c.together = True
        for w in worlds.values():
            for who in CONNECTIONS:
                w.told(who)
        for s in script:
            answers = {name: w.ask(s) for name, w in worlds.items()}
            trail.append(f"{text(s)}  -> {answers[next(iter(answers))]}")
            if self.args.episode is not None:
                print(text(s), *(f"\n    {name:10s} {a!r:.200}" for name, a in answers.items()), flush=True)
            for c in self.comparisons:
                if c.together:
                    c.compare(changes.kinds(s), s, answers[c.pair[0]], answers[c.pair[1]], trail)
            changes.note(s, answers.values())
            self.events_compare(worlds, s, changes.owners, trail)
            self.steps += 1
            if self.comparisons and not any(c.together for c in self.comparisons):
                break
        if any(c.together for c in self.comparisons):
            trees = {name: w.tree() for name, w in worlds.items() if any(c.together and name in c.pair for c in self.comparisons)}
            for c in self.comparisons:
                if c.together:
                    c.compare({"tree", "owners in the tree"} if changes.owners else {"tree"}, None, *tree_difference(trees[c.pair[0]], trees[c.pair[1]]), trail)
        for name, w in worlds.items():
            if not w.close():
                w.server.stop()
                self.start(name)

    def run(self):
        for name in self.args.servers:
            self.start(name)
        numbers = [self.args.episode] if self.args.episode is not None else range(10**9)
        for number in numbers:
            self.episode(number)
            if self.steps >= self.args.steps or sum(len(c.unexplained) for c in self.comparisons) >= self.args.failures:
                break

    def report(self):
        bad = 0
        for c in self.comparisons:
            total = sum(c.explained.values())
            print(f"{c.pair[0]} and {c.pair[1]}: {c.same} the same, {total} different and explained, {len(c.unexplained)} unexplained")
            for why, count in c.explained.most_common():
                print(f"  {count:6d}  {why}")
            for where, trail in c.unexplained:
                print(f"UNEXPLAINED: {where}")
                if self.args.brief:
                    print(f"    {trail[0]}: {' | '.join(trail[-2:])}")
                    continue
                for line in [trail[0], *trail[max(1, len(trail) - self.args.trail):]]:
                    print(f"    {line}")
            bad += len(c.unexplained)
        print(f"{self.steps} steps, seed {self.args.seed}")
        return bad


def tree_difference(left, right):
    """Both, but for what they have in common."""
    if left == right:
        return (), ()
    only = lambda a, b: [n for n in a if n not in b] or [n[0] for n in a]
    return only(left, right), only(right, left)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("directory")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--steps", type=int, default=2000)
    p.add_argument("--episode", type=int)
    p.add_argument("--failures", type=int, default=1)
    p.add_argument("--brief", action="store_true")
    p.add_argument("--trail", type=int, default=100)
    p.add_argument("--servers", type=lambda s: s.split(","), default=list(SERVERS))
    differ = Differ(p.parse_args())
    try:
        differ.run()
    finally:
        differ.stop()
        bad = differ.report()
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
