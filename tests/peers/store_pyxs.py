# SPDX-License-Identifier: MIT
"""What pyxs, a client of xenstore that shares no code with libxenstore, does with a store: store_pyxs.py SOCKET
GUEST-SOCKET. Domain 3 is introduced here. Ends with 0 where all went as it should."""
import sys

from pyxs import Client, PyXSError

dom0_path, guest_path = sys.argv[1:]


def refused(call, *args):
    try:
        call(*args)
    except PyXSError as e:
        return e.args[0]
    raise AssertionError('%s%r was allowed' % (call.__name__, args))


with Client(unix_socket_path=dom0_path) as c:
    c.write(b'/a/b', b'value')
    assert c.read(b'/a/b') == b'value'
    assert c.list(b'/a') == [b'b']
    assert c.exists(b'/a') and not c.exists(b'/a/x')
    assert c.read(b'/a/x', b'default') == b'default'
    c.mkdir(b'/a/d')
    assert sorted(c.list(b'/a')) == [b'b', b'd']
    assert [top for top, _, _ in c.walk(b'/a')] == [b'/a', b'/a/b', b'/a/d']
    c.set_perms(b'/a/b', [b'n0', b'r3'])
    assert c.get_perms(b'/a/b') == [b'n0', b'r3']
    assert c.get_domain_path(3) == b'/local/domain/3'
    assert not c.is_domain_introduced(3)
    c.introduce_domain(3, 1, 0)
    assert c.is_domain_introduced(3)
    c.write(b'/local/domain/3', b'')
    c.set_perms(b'/local/domain/3', [b'n3'])

    # A transaction shows what it did to nobody, and then all at once; one that collided says so.
    with Client(unix_socket_path=dom0_path) as other:
        c.transaction()
        c.write(b'/t/1', b'x')
        c.write(b'/t/2', b'y')
        assert not other.exists(b'/t')
        assert c.commit()
        assert other.list(b'/t') == [b'1', b'2']
        c.transaction()
        c.write(b'/t/1', b'mine')
        other.write(b'/t/1', b'theirs')
        assert not c.commit()
        assert c.read(b'/t/1') == b'theirs'
        c.transaction()
        c.delete(b'/t')
        c.rollback()
        assert c.exists(b'/t')

    monitor = c.monitor()
    monitor.watch(b'/w', b'token')
    events = monitor.wait()
    assert tuple(next(events)) == (b'/w', b'token')
    c.write(b'/w/x', b'1')
    assert tuple(next(events)) == (b'/w/x', b'token')
    c.delete(b'/w')
    assert tuple(next(events)) == (b'/w', b'token')
    monitor.unwatch(b'/w', b'token')

    with Client(unix_socket_path=guest_path) as guest:
        assert guest.read(b'/a/b') == b'value'
        refused(guest.write, b'/a/b', b'no')
        refused(guest.read, b'/t/1')
        guest.write(b'data', b'mine')
        assert c.read(b'/local/domain/3/data') == b'mine'
        refused(guest.introduce_domain, 4, 1, 0)
        refused(guest.set_perms, b'data', [b'n0'])
    c.delete(b'/a')
    assert not c.exists(b'/a/b')
