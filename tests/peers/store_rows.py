# SPDX-License-Identifier: MIT
"""tests/peers/store_rows.py: where stores differ, and why that is so: the table by which store_diff.py judges. docs/store.md tells the
same to people. A row is of pairs of servers, of a kind of difference and of a predicate; `parts`: what they hold is not the same from there on.

Kinds: an answer; one in a transaction that was not alone (disturbed) or that met a quota (refused), or after a guest made a node (owners);
events, those of guests, and of the guest that has a target; the tree."""
import collections

from store_wire import OPS

PAIRS = [("ours", "c"), ("c", "ocaml"), ("ours-ocaml", "ocaml")]
OURS_C, C_OCAML, OURS_OCAML = PAIRS
WITH_OCAML = [C_OCAML, OURS_OCAML]
Row = collections.namedtuple("Row", "why pairs kind match parts", defaults=(True,))

ONE_PATH = {OPS[n] for n in ("READ", "MKDIR", "RM", "DIRECTORY", "GET_PERMS")}
NUMBERS = {OPS[n] for n in ("SET_TARGET", "DIRECTORY_PART", "INTRODUCE", "RELEASE", "RESUME", "IS_DOMAIN_INTRODUCED", "GET_DOMAIN_PATH")}
STRINGS = {OPS[n]: count for n, count in dict(WATCH=2, UNWATCH=2, DIRECTORY_PART=2, SET_TARGET=2, INTRODUCE=3, TRANSACTION_END=1, RELEASE=1,
                                               RESUME=1, IS_DOMAIN_INTRODUCED=1, GET_DOMAIN_PATH=1).items()}
LOOKING = {OPS[n] for n in ("READ", "DIRECTORY", "GET_PERMS", "DIRECTORY_PART")}
STRINGS.update({op: 1 for op in ONE_PATH})


def is_op(s, *names):
    return s is not None and s.op in {OPS[n] for n in names}


def strings(s):
    return (s.payload or b"").split(b"\0")


def path(s):
    return strings(s)[0].decode(errors="replace")


def well_formed(s):
    """As many strings as the operation has, each with its NUL, and nothing else."""
    if s.payload is None:
        return True
    if is_op(s, "WRITE"):
        return b"\0" in s.payload
    if is_op(s, "SET_PERMS"):
        return s.payload.endswith(b"\0") and s.payload.count(b"\0") >= 2
    return s.op not in STRINGS or (s.payload.endswith(b"\0") and s.payload.count(b"\0") == STRINGS[s.op])


def special(s):
    return path(s).startswith("@")


def plain_number(text):
    return text.isdigit() and (text == b"0" or not text.startswith(b"0")) and int(text) < 32752


def error(answer):
    return answer[0].startswith("E") and answer[0] != "ERROR"


def ordinary_names(answer):
    return sorted(n for n in answer[1].split(b"\0") if not n.startswith(b"@"))


def reordered(s, a, b):
    return sorted(a) == sorted(b)


def doubled(s, a, b):
    return set(a) == set(b) and (len(set(b)) == len(b) or len(set(a)) == len(a))


def without_dead(perms):
    """Of the domids that a script uses only the guests are always there."""
    return [p for p in perms.split(b"\0") if p[1:] in (b"0", b"3", b"4", b"5")]


def dead_named(s, a, b):
    return is_op(s, "GET_PERMS") and not error(a) and not error(b) and without_dead(a[1]) == without_dead(b[1])


def dead_in_tree(s, a, b):
    if [n[:2] for n in a] != [n[:2] for n in b] or not all(len(n) == 3 for n in a):
        return False
    return all(without_dead(x[2]) == without_dead(y[2]) for x, y in zip(a, b))


def looks(s):
    return s.op in LOOKING


def no_node_is_tried(s, a, b):
    return is_op(s, "RM") and error(a) and b[0] == "RM"


def but_for_owners(s, a, b):
    same = lambda x, y: [p[:1] for p in x.split(b"\0")][:1] == [p[:1] for p in y.split(b"\0")][:1] and x.split(b"\0")[1:] == y.split(b"\0")[1:]
    if s is not None:
        return is_op(s, "GET_PERMS") and not error(a) and not error(b) and same(a[1], b[1])
    if not all(len(n) == 3 for n in (*a, *b)):
        return False
    return [n[:2] for n in sorted(a)] == [n[:2] for n in sorted(b)] and all(same(x[2], y[2]) for x, y in zip(sorted(a), sorted(b)))


ROWS = [
    Row("xenstored aborts where it takes the error of some request before and there was none", [OURS_C, C_OCAML], "answer",
        lambda s, a, b: (not well_formed(s) or special(s)) and "GONE" in (a[0], b[0])),
    Row("in a transaction, after a change by another: ours looks at a node when it is asked for it, xenstored when it was on the way to another",
        [OURS_C], "disturbed", lambda s, a, b: looks(s), parts=False),
    Row("a change in a transaction of what has been changed by another: it cannot be committed", [OURS_C], "disturbed",
        lambda s, a, b: not is_op(s, "TRANSACTION_END")),
    Row("a transaction in which a request met a quota: xenstored does not commit it", [OURS_C, C_OCAML], "refused",
        lambda s, a, b: is_op(s, "TRANSACTION_END") and "ENOMEM" in (a[0], b[0])),
    Row("xenstored has a transaction collide where it only came by, or was refused to look; ours where it learned something", [OURS_C], "disturbed",
        lambda s, a, b: is_op(s, "TRANSACTION_END") and a[1] == b"OK\0" and b[0] == "EAGAIN"),
    Row("xenstored answers to a payload that is not well-formed with the error of some request before",
        [OURS_C, C_OCAML], "answer", lambda s, a, b: not well_formed(s) and error(a) and error(b), parts=False),
    Row("xenstored ignores what stands behind the strings that it looks for", [OURS_C], "answer",
        lambda s, a, b: not well_formed(s) and a[0] == "EINVAL" and not error(b)),
    Row("paths of domain 0: 3072 bytes; xenstored has the guests' limit of 2048", [OURS_C], "answer",
        lambda s, a, b: len(path(s)) > 2048 and b[0] == "EINVAL"),
    Row("who may not change a special node's permissions: EACCES; of xenstored the error of some request before", [OURS_C, C_OCAML], "answer",
        lambda s, a, b: is_op(s, "SET_PERMS") and special(s) and error(a) and error(b), parts=False),
    Row("xenstored has no permissions of special nodes to show, and none that does not exist", [OURS_C, C_OCAML], "answer",
        lambda s, a, b: is_op(s, "GET_PERMS", "SET_PERMS") and special(s), parts=False),
    Row("a permission's domid is one that a domain can have; the others take each number", [OURS_C, OURS_OCAML], "answer",
        lambda s, a, b: is_op(s, "SET_PERMS") and a[0] == "EINVAL" and not all(plain_number(p[1:]) for p in strings(s)[1:-1])),
    Row("a domain that is gone: ours and oxenstored forget it in permissions, xenstored shows it and does not heed it", [OURS_C, C_OCAML], "answer",
        dead_named, parts=False),
    Row("a domain that is gone: ours and oxenstored forget it in permissions, xenstored shows it and does not heed it", [OURS_C, C_OCAML], "tree", dead_in_tree),
    Row("which error of several comes first", [OURS_C], "answer", lambda s, a, b: is_op(s, "SET_PERMS", "SET_TARGET") and error(a) and error(b) and
        ("EINVAL" in (a[0], b[0])), parts=False),
    Row("a watch of a special name that does not exist: xenstored takes it", [OURS_C], "answer", lambda s, a, b: is_op(s, "WATCH", "UNWATCH") and special(s)),
    Row("domain 0 cannot be introduced, and has no target", [OURS_C], "answer",
        lambda s, a, b: is_op(s, "INTRODUCE", "SET_TARGET") and strings(s)[0] == b"0", parts=False),
    Row("what is no number is an error; xenstored reads as far as there are digits", [OURS_C], "answer",
        lambda s, a, b: s.op in NUMBERS and not all(plain_number(n) for n in strings(s)[is_op(s, "DIRECTORY_PART"):-1])),
    Row("two watches of a connection with one token: xenstored tells of a change once", PAIRS, "events", doubled, parts=False),
    Row("a transaction that removes a tree: ours tells those who could read the parent before it, xenstored asks who can after it", [OURS_C],
        "events of guests", lambda s, a, b: is_op(s, "TRANSACTION_END") and set(b) < set(a), parts=False),
    Row("which of a connection's watches is told first of one change", PAIRS, "events", reordered, parts=False),
    Row("an unknown transaction: xenstored ENOENT, oxenstored EIO", [C_OCAML], "answer", lambda s, a, b: error(a) and b[0] == "EIO", parts=False),
    Row("a missing node below one that the caller may not read: xenstored EACCES, oxenstored ENOENT", [C_OCAML], "answer",
        lambda s, a, b: a[0] == "EACCES" and b[0] == "ENOENT", parts=False),
    Row("oxenstored of 4.17 has no DIRECTORY_PART", WITH_OCAML, "answer",
        lambda s, a, b: is_op(s, "DIRECTORY_PART") and b[0] in ("ENOSYS", "EIO"), parts=False),
    Row("oxenstored has the special names as nodes, to be written, read and removed", WITH_OCAML, "answer", lambda s, a, b: special(s)),
    Row("oxenstored lists children by name, xenstored the oldest first", WITH_OCAML, "answer",
        lambda s, a, b: is_op(s, "DIRECTORY") and ordinary_names(a) == ordinary_names(b), parts=False),
    Row("UNWATCH of what is no path: xenstored ENOENT, oxenstored EINVAL", WITH_OCAML, "answer",
        lambda s, a, b: is_op(s, "UNWATCH") and error(a) and error(b), parts=False),
    Row("oxenstored lists children by name, xenstored the oldest first", WITH_OCAML, "tree", lambda s, a, b: sorted(a) == sorted(b), parts=False),
    Row("oxenstored has nothing against the removal of a node that is missing, or cannot be", WITH_OCAML, "owners", no_node_is_tried),
    Row("oxenstored has nothing against the removal of a node that is missing, or cannot be", WITH_OCAML, "answer",
        lambda s, a, b: s.who != "guest5" and no_node_is_tried(s, a, b), parts=False),
    Row("oxenstored has nothing against the removal of a node that is missing, or cannot be", WITH_OCAML, "answer", no_node_is_tried),
    Row("oxenstored merges transactions that changed other nodes", WITH_OCAML, "disturbed",
        lambda s, a, b: is_op(s, "TRANSACTION_END") and {a[0], b[0]} & {"EAGAIN", "ENOMEM"}),
    Row("in a transaction oxenstored shows the tree of its start", WITH_OCAML, "disturbed", lambda s, a, b: looks(s), parts=False),
    Row("in a transaction oxenstored changes the tree of its start", WITH_OCAML, "disturbed", lambda s, a, b: not is_op(s, "TRANSACTION_END")),
    Row("a removal: oxenstored tells whoever watches below it, of nodes that never were, too", WITH_OCAML, "events",
        lambda s, a, b: is_op(s, "RM", "TRANSACTION_END", "RELEASE") and set(a) <= set(b), parts=False),
    Row("a domain that is not introduced: oxenstored removes its nodes all the same when it is released", WITH_OCAML, "answer",
        lambda s, a, b: is_op(s, "RELEASE") and error(a) and error(b)),
    Row("a domain that is not introduced: xenstored ENOENT, oxenstored EINVAL", WITH_OCAML, "answer",
        lambda s, a, b: is_op(s, "RESUME", "SET_TARGET") and error(a) and error(b), parts=False),
    Row("oxenstored tells nobody of nodes that go with their domain", WITH_OCAML, "events",
        lambda s, a, b: is_op(s, "RELEASE") and set(b) <= set(a), parts=False),
    Row("a domain with a target: xenstored knows the target's entry from the default, oxenstored takes the better", WITH_OCAML, "answer",
        lambda s, a, b: s.who == "guest5" and a[0] == "EACCES"),
    Row("oxenstored lets any domid be a target", WITH_OCAML, "answer", lambda s, a, b: is_op(s, "SET_TARGET") and b[1] == b"OK\0"),
    Row("domain 0 as one that is introduced or resumed", WITH_OCAML, "answer",
        lambda s, a, b: is_op(s, "INTRODUCE", "RESUME") and strings(s)[0] == b"0", parts=False),
    Row("oxenstored asks nobody who makes a directory that is there", WITH_OCAML, "answer",
        lambda s, a, b: is_op(s, "MKDIR") and a[0] == "EACCES" and b[0] == "MKDIR", parts=False),
    Row("a payload that is not well-formed is cut into strings in another way", WITH_OCAML, "answer", lambda s, a, b: not well_formed(s)),
    Row("paths of oxenstored have 1024 bytes, those of xenstored 2048; watched ones any number", WITH_OCAML, "answer",
        lambda s, a, b: len(path(s)) > 1000 and (error(a) or error(b))),
    Row("oxenstored bounds a node's value, domain 0's too; xenstored all of a node, of guests", WITH_OCAML, "answer",
        lambda s, a, b: is_op(s, "WRITE", "MKDIR", "SET_PERMS") and (b[0] == "E2BIG" or a[0] == "ENOSPC")),
    Row("oxenstored does not count permissions, and has other errors for those that cannot be set", WITH_OCAML, "answer",
        lambda s, a, b: is_op(s, "SET_PERMS") and error(a) and error(b), parts=False),
    Row("oxenstored says OK to a command that it does not know", WITH_OCAML, "answer", lambda s, a, b: is_op(s, "CONTROL") and b[1] == b"OK\0", parts=False),
    Row("what is no number is read differently", WITH_OCAML, "answer", lambda s, a, b: s.op in NUMBERS and not all(plain_number(n) for n in strings(s)[:-1])),
    Row("a guest owns what it makes; with oxenstored the parent's owner does", WITH_OCAML, "owners", but_for_owners, parts=False),
    Row("a guest owns what it makes; with oxenstored the parent's owner does", WITH_OCAML, "owners in the tree", but_for_owners),
    Row("a guest owns what it makes; with oxenstored the parent's owner does", WITH_OCAML, "owners",
        lambda s, a, b: {a[0], b[0]} & {"EACCES", "EPERM"}),
    Row("a guest owns what it makes; with oxenstored the parent's owner does", WITH_OCAML, "owners in events",
        lambda s, a, b: set(a) <= set(b) or set(b) <= set(a), parts=False),
    Row("a domain with a target: oxenstored does not tell it of what only its target may read", WITH_OCAML, "events of a target's",
        lambda s, a, b: set(b) <= set(a), parts=False),
]


def explain(pair, kinds, s, left, right):
    """The row that says why these two differ, or None."""
    for row in ROWS:
        if pair in row.pairs and row.kind in kinds and row.match(s, left, right):
            return row
    return None
