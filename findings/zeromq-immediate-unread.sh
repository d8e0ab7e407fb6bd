#!/bin/sh
# ZMQ_IMMEDIATE is about sending: it keeps a client from queueing for a server that isn't there. It
# also decides what becomes of messages that have come and were not read yet. When the server goes
# away a client without the option still reads them; with it libzmq throws them away, also those that
# `poll` had reported. So a server's last word before it closes is lost to a client that reads a
# moment too late, as on a busy host, and no socket event tells of it.
# Seen with libzmq 4.3.5 in pyzmq 27.3.0: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q pyzmq==27.3.0

cat >unread.py <<'PY'
import zmq

print("pyzmq", zmq.pyzmq_version(), "libzmq", zmq.zmq_version())
for immediate in (0, 1):
    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    server.bind("tcp://127.0.0.1:*")
    client = context.socket(zmq.DEALER)
    client.immediate = immediate
    client.linger = 0
    monitor = client.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    client.connect(server.last_endpoint.decode())
    client.send(b"hello")
    name, _ = server.recv_multipart()
    for word in (b"the last", b"word"):
        server.send_multipart([name, word])
    reported = bool(client.poll(10_000))
    server.close(1000)
    if not monitor.poll(10_000):
        raise SystemExit("the connection did not end")
    read = []
    while client.poll(500):
        read.append(client.recv().decode())
    print(f"IMMEDIATE={immediate}: poll reported {reported}; read after the end: {read}")
    client.disable_monitor()
    monitor.close(0)
    client.close()
    context.term()
PY
python/bin/python unread.py | tee seen
cat >expected <<'OUT'
pyzmq 27.3.0 libzmq 4.3.5
IMMEDIATE=0: poll reported True; read after the end: ['the last', 'word']
IMMEDIATE=1: poll reported True; read after the end: []
OUT
diff expected seen
