#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""test_relay.py bytes|delay PORT NETNS: plays both ends of the lab's relay.

NETNS is the target's network namespace, where the relay listens on port 5514; PORT is ours, where the engine would
listen. rsyslog of the target connects there as well: its lines are told apart by what they hold.
"""

import os
import selectors
import socket
import subprocess
import sys
import threading
import time

WRITE_ALL = """
import socket, sys
s = socket.create_connection(("127.0.0.1", 5514))
s.sendall(sys.stdin.buffer.read())
s.shutdown(socket.SHUT_WR)
s.recv(1)
"""

WRITE_LINES = """
import socket, time
s = socket.create_connection(("127.0.0.1", 5514))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for _ in range(50):
    s.sendall(b"PROBE %d\\n" % time.clock_gettime_ns(time.CLOCK_MONOTONIC))
    time.sleep(0.01)
"""


def in_target(netns, program):
    return subprocess.Popen(["nsenter", "--net=" + netns, sys.executable, "-uc", program], stdin=subprocess.PIPE)


def streams(port):
    """Yields (peer, chunk) of every connection, for up to 10 seconds."""
    server = socket.create_server(("127.0.0.1", port))
    select = selectors.DefaultSelector()
    select.register(server, selectors.EVENT_READ)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for key, _ in select.select(0.2):
            if key.fileobj is server:
                select.register(server.accept()[0], selectors.EVENT_READ)
                continue
            chunk = key.fileobj.recv(1 << 20)
            if not chunk:
                select.unregister(key.fileobj)
                key.fileobj.close()
            yield key.fileobj, chunk


def test_bytes(port, netns):
    data = os.urandom(8 << 20)
    sender = in_target(netns, WRITE_ALL)
    threading.Thread(target=lambda: (sender.stdin.write(data), sender.stdin.close()), daemon=True).start()
    time.sleep(0.5)  # There is no engine yet: the bytes must wait.
    got = {}
    for peer, chunk in streams(port):
        got[peer] = got.get(peer, b"") + chunk
        if not chunk and got[peer] == data:
            return
    sys.exit(f"of {len(data)} bytes came {[len(part) for part in got.values()]}")


def test_delay(port, netns):
    in_target(netns, WRITE_LINES)
    delays, rest = [], {}
    for peer, chunk in streams(port):
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        *lines, rest[peer] = (rest.get(peer, b"") + chunk).split(b"\n")
        delays += [(now - int(line.split()[1])) / 1e6 for line in lines if line.startswith(b"PROBE")]
        if len(delays) == 50:
            break
    delays.sort()
    if len(delays) < 50 or delays[45] >= 50:
        sys.exit(f"{len(delays)} of 50 lines came, in ms: {delays}")
    print(f"median {delays[25]:.2f} ms, 9 of 10 below {delays[45]:.2f} ms")


if __name__ == "__main__":
    {"bytes": test_bytes, "delay": test_delay}[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
