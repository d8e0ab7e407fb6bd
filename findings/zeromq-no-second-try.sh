#!/bin/sh
# A ZeroMQ client connects again by itself when its server goes away, and when the server has other
# CURVE keys than it expects. Not after two other things: a server of another security mechanism, and
# a message beyond the client's own ZMQ_MAXMSGSIZE. Then it gives up for good, and says so nowhere:
# `send` goes on queueing, and a server that fits, started later at that address, waits in vain. So
# whoever restarts a server to turn keys on has to restart the clients that saw it without.
# Seen with libzmq 4.3.5 in pyzmq 27.3.0: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q pyzmq==27.3.0

cat >again.py <<'PY'
import time

import zmq
from zmq.utils.monitor import recv_monitor_message

context = zmq.Context()
right, wrong, own = (zmq.curve_keypair() for _ in range(3))


def listen(keys, address="tcp://127.0.0.1:*"):
    server = context.socket(zmq.ROUTER)
    server.linger = 0
    if keys is not None:
        server.curve_server = True
        server.curve_publickey, server.curve_secretkey = keys
    for _ in range(100):  # close() returns before the address is free.
        try:
            server.bind(address)
            return server
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            time.sleep(0.05)
    raise SystemExit(f"{address} is not free after 5 seconds")


def dial(address, keys):
    client = context.socket(zmq.DEALER)
    client.linger = 0
    client.reconnect_ivl = 50
    client.maxmsgsize = 1000
    if keys is not None:
        client.curve_serverkey, _ = keys
        client.curve_publickey, client.curve_secretkey = own
    monitor = client.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    client.connect(address)
    return client, monitor


def told(name, first, second, answer=None):
    """The client expects `second`; before that server there is another at its address."""
    server = listen(first)
    address = server.last_endpoint.decode()
    client, monitor = dial(address, second)
    if answer is not None:
        client.send(b"hello")
        peer, _ = server.recv_multipart()
        server.send_multipart([peer, answer])
    if answer == b"small":
        assert client.recv() == answer
        server.close()
    assert monitor.poll(10_000), "the client was not disconnected"
    recv_monitor_message(monitor)
    if not server.closed:
        server.close()
    server = listen(second, address)
    client.send(b"here again")
    print(f"{name}: {'comes again' if server.poll(3_000) else 'never comes again'}")
    server.close()
    client.disable_monitor()
    client.close()


told("server went away", None, None, b"small")
told("server of other keys", wrong, right)
told("server without keys", None, right)
told("server with keys, client without", right, None)
told("message beyond the client's limit", None, None, bytes(1001))
PY
timeout 60 python/bin/python again.py | tee output
cat >expected <<'TXT'
server went away: comes again
server of other keys: comes again
server without keys: never comes again
server with keys, client without: never comes again
message beyond the client's limit: never comes again
TXT
cmp expected output
