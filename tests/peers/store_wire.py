# SPDX-License-Identifier: MIT
"""tests/peers/store_wire.py: three stores, started by scripts/peer-store.sh, and raw connections to them: domain 0's by socket, a
guest's by its ring (the reference servers: tests/peers/xenshim.c) or by its socket (ours). What goes over them is bytes that the caller
chose; nothing is checked or completed on the way."""
import ctypes, mmap, os, select, signal, socket, struct, subprocess, time

OPS = dict(CONTROL=0, DIRECTORY=1, READ=2, GET_PERMS=3, WATCH=4, UNWATCH=5, TRANSACTION_START=6, TRANSACTION_END=7, INTRODUCE=8, RELEASE=9,
           GET_DOMAIN_PATH=10, WRITE=11, MKDIR=12, RM=13, SET_PERMS=14, WATCH_EVENT=15, ERROR=16, IS_DOMAIN_INTRODUCED=17, RESUME=18,
           SET_TARGET=19, RESET_WATCHES=21, DIRECTORY_PART=22, GET_FEATURE=23, SET_FEATURE=24, GET_QUOTA=25, SET_QUOTA=26)
NAMES = {number: name for name, number in OPS.items()}
HEADER = struct.Struct("<4I")
PATIENCE_SECONDS = 20  # of a server that is to answer; a brake (docs/store.md) is shorter
PORT_DOM_EXC, PORT_GUEST = 900, 1000  # xenshim.c
PORT_NONE = 0  # of a guest of ours: no ring, its socket


class Gone(Exception):
    """The connection ended, or nothing came."""


class Connection:
    """Requests in, replies out; events are put aside as they come."""

    def __init__(self):
        self.events, self.request = [], 0

    def message(self):
        kind, request, tx, length = HEADER.unpack(self.receive(HEADER.size))
        return kind, request, tx, self.receive(length)

    def post(self, op, payload=b"", tx=0, length=None):
        self.request = (self.request + 1) & 0xFFFFFFFF
        self.send(HEADER.pack(op, self.request, tx, len(payload) if length is None else length) + payload)
        return self.request

    def reply(self):
        """(type, payload) of the next message that is no event, and its request's id. (What it says of a transaction differs: for
        operations that have none oxenstored says 0, the others what was asked.)"""
        while True:
            kind, request, _, payload = self.message()
            if kind != OPS["WATCH_EVENT"]:
                return (kind, payload), request
            self.events.append(payload)

    def ask(self, op, payload=b"", tx=0, pushed=False):
        """`pushed` by a request behind it: oxenstored looks at one without a payload only when more comes."""
        wanted = self.post(op, payload, tx)
        if pushed:
            self.post(OPS["GET_DOMAIN_PATH"], b"0\0")
        answer, request = self.reply()
        if pushed:
            self.reply()
        assert request == wanted, f"the reply to request {wanted} is one to {request}"
        return answer

    def drain(self):
        """What has been told until now: a request's reply comes behind it."""
        self.ask(OPS["GET_DOMAIN_PATH"], b"0\0")
        events, self.events = self.events, []
        return events


class Socket(Connection):
    def __init__(self, path):
        super().__init__()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)  # waits, as xenstored listens for one at a time
        self.socket.settimeout(PATIENCE_SECONDS)
        self.buffer = b""

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError as e:
            raise Gone(str(e)) from e

    def receive(self, length):
        while len(self.buffer) < length:
            try:
                more = self.socket.recv(65536)
            except OSError as e:
                raise Gone(str(e)) from e
            if not more:
                raise Gone("closed")
            self.buffer += more
        data, self.buffer = self.buffer[:length], self.buffer[length:]
        return data

    def close(self):
        self.socket.close()


class Ring(Connection):
    """The guest's end of struct xenstore_domain_interface (<xen/io/xs_wire.h>), in the shim's directory."""
    BYTES, RSP = 1024, 1024
    REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, ERROR = 2048, 2052, 2056, 2060, 2072

    def __init__(self, directory, domid, server_dead):
        super().__init__()
        self.server_dead = server_dead
        self.port = struct.pack("<I", PORT_GUEST + domid)
        with open(f"{directory}/ring.{domid}", "r+b") as f:
            self.page = mmap.mmap(f.fileno(), 4096)
        self.words = memoryview(self.page).cast("I")  # an index is written at once
        self.notify = os.open(f"{directory}/port", os.O_WRONLY)
        self.kicked = os.open(f"{directory}/kick.{domid}", os.O_RDONLY | os.O_NONBLOCK)

    def word(self, at):
        return self.words[at // 4]

    def wait(self, ready):
        until = time.monotonic() + PATIENCE_SECONDS
        while not ready():
            if self.word(self.ERROR):
                raise Gone(f"ring error {self.word(self.ERROR)}")
            if time.monotonic() > until or self.server_dead():
                raise Gone("no answer in the ring")
            if select.select([self.kicked], [], [], 0.1)[0]:
                os.read(self.kicked, 4096)

    def move(self, data_at, index_at, index, data):
        """Into or out of the queue at `data_at`, as far as it does not wrap; then the index."""
        start = data_at + index % self.BYTES
        if isinstance(data, int):
            data = self.page[start : start + min(data, self.BYTES - index % self.BYTES)]
        else:
            data = data[: self.BYTES - index % self.BYTES]
            self.page[start : start + len(data)] = data
        self.words[index_at // 4] = (index + len(data)) & 0xFFFFFFFF
        try:
            os.write(self.notify, self.port)
        except OSError as e:
            raise Gone(str(e)) from e
        return data

    def send(self, data):
        room = lambda: self.BYTES - ((self.word(self.REQ_PROD) - self.word(self.REQ_CONS)) & 0xFFFFFFFF)
        while data:
            self.wait(room)
            data = data[len(self.move(0, self.REQ_PROD, self.word(self.REQ_PROD), data[: room()])) :]

    def receive(self, length):
        there = lambda: (self.word(self.RSP_PROD) - self.word(self.RSP_CONS)) & 0xFFFFFFFF
        data = b""
        while len(data) < length:
            self.wait(there)
            data += self.move(self.RSP, self.RSP_CONS, self.word(self.RSP_CONS), min(there(), length - len(data)))
        return data

    def close(self):
        self.words.release()
        self.page.close()
        os.close(self.notify)
        os.close(self.kicked)


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Server:
    """`kind` is what peer-store.sh starts: c, ocaml, ours; `options` are further ones of its command line."""

    def __init__(self, name, kind, directory, options=()):
        self.name, self.kind, self.directory = name, kind, directory
        os.makedirs(directory)
        self.log = open(f"{directory}/peer.log", "wb")
        script = os.path.join(os.path.dirname(__file__), "../../scripts/peer-store.sh")
        self.process = subprocess.Popen([script, "run", kind, directory, *options], stdout=self.log, stderr=self.log, preexec_fn=die_with_parent)
        until = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
                return
            except (OSError, Gone):
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    with open(f"{directory}/peer.log", errors="replace") as f:
                        raise RuntimeError(f"{name} does not serve: {f.read()[-2000:]}")
                time.sleep(0.02)

    def connect(self):
        return Socket(f"{self.directory}/socket")

    def introduce_payload(self, domid):
        return b"%d\0001\000%d\0" % (domid, PORT_NONE if self.kind == "ours" else 1)

    def guest(self, dom0, domid):
        """Introduces the guest, whose page is empty, and is it."""
        if os.path.exists(f"{self.directory}/ring.{domid}"):
            with open(f"{self.directory}/ring.{domid}", "r+b") as f:
                f.write(bytes(4096))
        answer = dom0.ask(OPS["INTRODUCE"], self.introduce_payload(domid))
        assert answer == (OPS["INTRODUCE"], b"OK\0"), (self.name, answer)
        if self.kind == "ours":
            return Socket(f"{self.directory}/dom/{domid}/xenstored.sock")
        return Ring(self.directory, domid, self.dead)

    def dead(self):
        return self.process.poll() is not None

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
