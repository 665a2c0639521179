#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""relay.py LISTEN TO: takes the target's log stream out of its network, byte for byte.

Started inside the target's network namespace with descriptor 7 open on the outer one. Listens on LISTEN there, goes
back to the outer network, and sends what comes to TO: an address of this machine, or file:PATH.

A connection is read only when there is someone to give the bytes to: until the engine listens they wait with rsyslog.
"""

import asyncio
import ctypes
import os
import socket
import sys

OUTER_NETWORK = 7
CLONE_NEWNET = 0x40000000


def address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def listener(at):
    listening = socket.create_server(address(at), backlog=16)
    listening.setblocking(False)
    return listening


def leave_for_outer_network():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(OUTER_NETWORK, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "could not enter the outer network namespace")
    os.close(OUTER_NETWORK)


async def connect(to):
    host, port = address(to)
    while True:
        try:
            return await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.05)


async def pass_on(reader, writer):
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def to_engine(to, reader, writer):
    from_engine, engine = await connect(to)
    # Either end closing closes the other, so that rsyslog notices a dead engine and tries again.
    await asyncio.gather(pass_on(reader, engine), pass_on(from_engine, writer))


async def to_file(path, reader, writer):
    with open(path, "ab", buffering=0) as file:
        while chunk := await reader.read(65536):
            file.write(chunk)
    writer.close()


async def main(at, to):
    listening = listener(at)
    leave_for_outer_network()
    into = (lambda r, w: to_file(to[5:], r, w)) if to.startswith("file:") else (lambda r, w: to_engine(to, r, w))
    server = await asyncio.start_server(into, sock=listening)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
