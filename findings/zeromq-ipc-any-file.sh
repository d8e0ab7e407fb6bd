#!/bin/sh
# Binding a ZeroMQ socket to `ipc://PATH` removes whatever file is at PATH first: a socket that a killed
# process left, but just as well a document, without a word. The socket of a server that still runs is
# taken away, too, which then hears of no client any more. bind() of the system fails with EADDRINUSE.
# Seen with libzmq 4.3.5 in pyzmq 27.3.0: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q pyzmq==27.3.0

cat >bind.py <<'PY'
import errno
import os
import socket

import zmq

context = zmq.Context()


def by_zeromq(path):
    server = context.socket(zmq.REP)
    server.bind(f"ipc://{path}")
    return server


def by_python(path):
    try:
        socket.socket(socket.AF_UNIX).bind(path)
    except OSError as error:
        return errno.errorcode[error.errno]


with open("notes.txt", "w") as file:
    file.write("a document")
print("document, Python:", by_python("notes.txt"), os.path.getsize("notes.txt"), "bytes")
by_zeromq("notes.txt")
print("document, ZeroMQ:", "still a file" if os.path.isfile("notes.txt") else "a socket now")

first = by_zeromq("served")
print("served, Python:", by_python("served"))
second = by_zeromq("served")
client = context.socket(zmq.REQ)
client.connect("ipc://served")
client.send(b"hello")
print("served, ZeroMQ: heard by the first", bool(first.poll(1000)), "by the second", bool(second.poll(5000)))
context.destroy(0)
PY
timeout 60 python/bin/python bind.py | tee output
cat >expected <<'TXT'
document, Python: EADDRINUSE 10 bytes
document, ZeroMQ: a socket now
served, Python: EADDRINUSE
served, ZeroMQ: heard by the first False by the second True
TXT
cmp expected output
