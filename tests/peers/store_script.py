# SPDX-License-Identifier: MIT
"""tests/peers/store_script.py: what is asked of each store: the steps of an episode, from a seed alone. Nothing here knows an answer.

An episode begins in a world of its own (`BEGIN`): three guests, 3, 4 and 5 (5 has 4 as its target), and a tree with something for each
of them. Its flavour says which operations prevail."""
import collections, random, re

from store_wire import NAMES, OPS

GUESTS = (3, 4, 5)
SPARE = 6  # a domid that comes and goes
CONNECTIONS = {"dom0": 0, "dom0b": 0, "guest3": 3, "guest4": 4, "guest5": 5}
TX_UNKNOWN = 0x7FFFFFF0

# who asks, what, of which transaction: 0, a literal id, or the name of one that a TRANSACTION_START of this connection `names`.
# payload None: an INTRODUCE of `SPARE`, as each server wants it.
Step = collections.namedtuple("Step", "who op payload tx names", defaults=(0, None))


def step(who, op, *strings, tx=0, **more):
    return Step(who, OPS[op], b"".join(s.encode() + b"\0" for s in strings), tx, **more)


def write(who, path, value):
    return Step(who, OPS["WRITE"], path.encode() + b"\0" + value.encode())


BEGIN = [
    write("dom0", "/", ""), step("dom0", "MKDIR", "/tool"),
    step("dom0", "SET_PERMS", "/", "n0"),
    step("dom0", "SET_PERMS", "@introduceDomain", "n0"),
    step("dom0", "SET_PERMS", "@releaseDomain", "n0"),
    *[s for d in GUESTS for s in (write("dom0", f"/local/domain/{d}", ""), step("dom0", "SET_PERMS", f"/local/domain/{d}", f"n{d}"))],
    step("dom0", "SET_TARGET", "5", "4"),
    step("dom0", "MKDIR", "/w"), step("dom0", "SET_PERMS", "/w", "r0"),
    write("dom0", "/w/a", "of 3"), step("dom0", "SET_PERMS", "/w/a", "n3", "r4"),
    write("dom0", "/w/b", "for all"), step("dom0", "SET_PERMS", "/w/b", "b0"),
    write("dom0", "/w/c", "secret"), step("dom0", "SET_PERMS", "/w/c", "n0"),
]
ROOTS = ("/local", "/w", "/@x", "/tool")  # all that an episode can leave behind

FLAVOURS = {  # operations, and how often each
    "mixed": dict(READ=8, WRITE=10, MKDIR=4, RM=5, DIRECTORY=5, GET_PERMS=4, SET_PERMS=5, WATCH=5, UNWATCH=2, TRANSACTION_START=4, TRANSACTION_END=4,
                  DIRECTORY_PART=1, GET_DOMAIN_PATH=1, IS_DOMAIN_INTRODUCED=1, RESET_WATCHES=0.2, odd=1),
    "permissions": dict(READ=8, WRITE=8, MKDIR=4, RM=5, DIRECTORY=4, GET_PERMS=8, SET_PERMS=14, SET_TARGET=1, WATCH=1, TRANSACTION_START=1,
                        TRANSACTION_END=1),
    "transactions": dict(READ=8, WRITE=12, MKDIR=3, RM=6, DIRECTORY=3, GET_PERMS=1, SET_PERMS=2, TRANSACTION_START=8, TRANSACTION_END=7, WATCH=1),
    "watches": dict(WRITE=12, MKDIR=5, RM=8, SET_PERMS=3, WATCH=14, UNWATCH=7, RESET_WATCHES=0.5, TRANSACTION_START=3, TRANSACTION_END=3, INTRODUCE=1,
                    RELEASE=1),
    "domains": dict(INTRODUCE=6, RELEASE=5, RESUME=2, SET_TARGET=3, IS_DOMAIN_INTRODUCED=4, GET_DOMAIN_PATH=3, WRITE=5, SET_PERMS=5, GET_PERMS=4,
                    READ=3, WATCH=3),
    "malformed": dict(READ=3, WRITE=6, MKDIR=4, RM=3, DIRECTORY=2, DIRECTORY_PART=3, GET_PERMS=2, SET_PERMS=6, WATCH=6, UNWATCH=4,
                      TRANSACTION_START=2, TRANSACTION_END=3, INTRODUCE=1, RELEASE=1, RESUME=1, SET_TARGET=1, IS_DOMAIN_INTRODUCED=1,
                      GET_DOMAIN_PATH=1, RESET_WATCHES=0.5, CONTROL=2, odd=6),
    "quotas": dict(WRITE=10, big=6, MKDIR=3, RM=1, SET_PERMS=2, READ=2, DIRECTORY=2),
}
ODD_OPS = [15, 16, 20, 23, 24, 25, 26, 27, 28, 255, 65535, 0xFFFFFFFF]
ODD_PATHS = ["", "/", "//", "/w/", "/w//a", "w//a", "a/", "/w/a.b", "/w/a b", "/w/ä", "/w/a\n", "@", "@foo", "@introduceDomain", "@releaseDomain",
             "@introduceDomain/a", "/@x", "/w/@x", "./a", "..", "/local", "/local/domain", "/tool/nothing", "-", "/w/A_b-c@d"]
ODD_PERMS = ["", "n", "r", "x3", "3", "r-1", "r3x", "r 3", "r03", "R3", "n32751", "r32752", "r32767", "r65535", "r99999999999", "rw3", "n0n0"]
ODD_DOMIDS = ["", "x", "-1", "0", "00", "6x", "32751", "32752", "32753", "65536", "4294967302", "7", " 6", "0x6"]
LONG = [250, 1000, 1023, 1024, 1025, 2000, 2047, 2048, 2049, 3060, 3071, 3072, 3073, 4000]
BIG = [100, 1000, 1900, 2010, 2024, 2040, 2048, 2049, 3000, 4000]


class Episode:
    """The steps of one, by iteration."""

    def __init__(self, seed, number, length):
        self.random = random.Random(f"{seed}/{number}")
        self.flavour = self.random.choice([*FLAVOURS, "mixed", "transactions"])
        self.weights = FLAVOURS[self.flavour]
        self.length, self.open, self.count = length, {who: [] for who in CONNECTIONS}, 0
        self.malformed_often = 0.3 if self.flavour == "malformed" else 0.02

    def __iter__(self):
        names, weights = list(self.weights), list(self.weights.values())
        for _ in range(self.length):
            op = self.random.choices(names, weights)[0]
            privileged = op in ("INTRODUCE", "RELEASE", "RESUME", "SET_TARGET", "IS_DOMAIN_INTRODUCED")
            who = self.random.choices(list(CONNECTIONS), [8, 2, 1, 1, 1] if privileged else [3, 1, 3, 2, 2])[0]
            yield getattr(self, "make_" + op, self.make_path_only)(who, op)

    def chance(self, p):
        return self.random.random() < p

    def long_path(self):
        start = self.random.choice(["/w/", "/w/b/", "a", "/local/domain/3/"])
        length = self.random.choice(LONG)
        name = "l" * 200 if self.chance(0.7) else "l" * 5000
        return (start + "/".join([name] * 30))[:length]

    def path(self, who):
        if self.chance(self.malformed_often):
            return self.long_path() if self.chance(0.25) else self.random.choice(ODD_PATHS)
        below = "/".join(self.random.choice("abc") for _ in range(self.random.choice([0, 1, 1, 1, 2, 2, 3])))
        where = self.random.random()
        if where < 0.65:
            return "/w" + ("/" + below if below else "")
        if where < 0.8 and below:
            return below
        guest = CONNECTIONS[who] if CONNECTIONS[who] and self.chance(0.7) else self.random.choice(GUESTS)
        return f"/local/domain/{guest}" + ("/" + below if below else "")

    def tx(self, who):
        if self.chance(0.02):
            return TX_UNKNOWN
        if self.open[who] and self.chance(0.6):
            return self.random.choice(self.open[who])
        return 0

    def finish(self, who, op, payload, tx=0, **more):
        """The step, its payload damaged now and then."""
        if self.chance(self.malformed_often):
            payload = self.random.choice([
                lambda: b"", lambda: payload[:-1], lambda: payload + b"\0", lambda: payload + b"x", lambda: payload + b"x\0", lambda: b"\0" + payload,
                lambda: payload[: self.random.randrange(len(payload) + 1)], lambda: payload.replace(b"\0", b""), lambda: b"\0",
                lambda: self.random.randbytes(self.random.randrange(40)), lambda: payload + bytes(4096 - len(payload))])()
        return Step(who, OPS.get(op, op), payload[:4096], tx, **more)

    def strings(self, who, op, *strings, **more):
        return self.finish(who, op, b"".join(s.encode() + b"\0" for s in strings), **more)

    def make_path_only(self, who, op):  # READ MKDIR RM DIRECTORY GET_PERMS
        return self.strings(who, op, self.path(who), tx=self.tx(who))

    def make_WRITE(self, who, op):
        value = b"".join(self.random.choice([b"v", b"W", b"\0", b"\n", b"7"]) for _ in range(self.random.randrange(6)))
        return self.finish(who, op, self.path(who).encode() + b"\0" + value, self.tx(who))

    def make_big(self, who, op):
        value = b"x" * self.random.choice(BIG)
        return self.finish(who, "WRITE", self.path(who).encode() + b"\0" + value, self.tx(who))

    def make_DIRECTORY_PART(self, who, op):
        return self.strings(who, op, self.path(who), self.random.choice(["0", "0", "1", "2", "99", "-1", "x", ""]), tx=self.tx(who))

    def make_SET_PERMS(self, who, op):
        one = lambda: self.random.choice("nrwb") + str(self.random.choice([0, 3, 4, 5, SPARE, 3, 4, 5]))
        count = self.random.choice([1, 1, 2, 2, 3, 5, 6]) if self.chance(0.2) else self.random.choice([1, 2, 2])
        perms = [one() for _ in range(count)]
        if CONNECTIONS[who] and self.chance(0.7):
            perms[0] = perms[0][0] + str(CONNECTIONS[who])  # its own, as else it is refused
        if self.chance(self.malformed_often):
            perms[self.random.randrange(count)] = self.random.choice(ODD_PERMS)
        path = self.random.choice(["@introduceDomain", "@releaseDomain"]) if self.chance(0.05) else self.path(who)
        if path == "/":  # not given away: with its owner xenstored removes it
            perms[0] = perms[0][:1] + "0"
        return self.strings(who, op, path, *perms, tx=self.tx(who))

    def watched(self, who):
        return self.random.choice(["@introduceDomain", "@releaseDomain"]) if self.chance(0.1) else self.path(who)

    def make_WATCH(self, who, op):
        token = self.random.choice(["t1", "t2", "", "a token", "t" * 1000]) if self.chance(self.malformed_often * 2) else self.random.choice(["t1", "t2"])
        return self.strings(who, op, self.watched(who), token, tx=self.tx(who) if self.chance(0.1) else 0)

    make_UNWATCH = make_WATCH

    def make_RESET_WATCHES(self, who, op):
        return self.finish(who, op, b"\0" if self.chance(0.9) else b"", self.tx(who) if self.chance(0.2) else 0)

    def make_TRANSACTION_START(self, who, op):
        if len(self.open[who]) >= (12 if self.flavour == "transactions" else 4):
            return self.make_TRANSACTION_END(who, "TRANSACTION_END")
        self.count += 1
        name = f"x{self.count}"
        nested = self.tx(who) if self.chance(0.05) else 0
        made = self.finish(who, op, b"\0", nested, names=name)
        self.open[who].append(name)
        return made

    def make_TRANSACTION_END(self, who, op):
        if not self.open[who]:
            return self.strings(who, op, "T", tx=self.tx(who))
        tx = self.open[who].pop(self.random.randrange(len(self.open[who])))
        how = self.random.choice(["", "t", "TF", "X"]) if self.chance(self.malformed_often) else "T" if self.chance(0.8) else "F"
        return self.strings(who, op, how, tx=tx)

    def domid(self):
        if self.chance(self.malformed_often * 2):
            return self.random.choice(ODD_DOMIDS)
        return str(self.random.choice([SPARE, SPARE, SPARE, 7]))

    def make_INTRODUCE(self, who, op):
        if self.chance(self.malformed_often * 2):
            return self.strings(who, op, *self.random.choice([("6",), ("6", "1"), ("x", "1", "1"), ("0", "1", "1"), ("40000", "1", "1"), ("6", "x", "1")]))
        return Step(who, OPS[op], None)

    def make_RESUME(self, who, op):
        return self.strings(who, op, self.domid())

    def make_RELEASE(self, who, op):
        """Not of domain 0, or what reads like it: xenstored lets go of it, and cannot be asked anything any more."""
        made = self.strings(who, op, self.domid())
        return made if re.match(rb"\s*[+-]?0*[1-9]", made.payload) else step(who, op, str(SPARE))

    def make_IS_DOMAIN_INTRODUCED(self, who, op):
        return self.strings(who, op, self.random.choice(["0", "3", "32752"]) if self.chance(0.3) else self.domid())

    make_GET_DOMAIN_PATH = make_IS_DOMAIN_INTRODUCED

    def make_SET_TARGET(self, who, op):
        return self.strings(who, op, self.domid(), self.random.choice(["3", "4", "7", self.domid() if self.chance(self.malformed_often) else "4"]))

    def make_CONTROL(self, who, op):
        """Answers of domain 0's are for people, and each server's own; that there is no such command is not."""
        return self.strings(who, op, "check") if CONNECTIONS[who] else self.strings(who, op, "nonsense")

    def make_odd(self, who, op):
        return self.strings(who, self.random.choice(ODD_OPS), self.path(who))


def text(step):
    payload = repr(step.payload)[1:]
    return f"{step.who} {NAMES.get(step.op, step.op)} {payload if len(payload) < 90 else payload[:80] + f'… ({len(step.payload)} bytes)'}" + (
        f" in {step.tx}" if step.tx else "") + (f" = {step.names}" if step.names else "")
