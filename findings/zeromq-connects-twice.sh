#!/bin/sh
# After disconnect() and a connect() to the same address libzmq connects twice, where the socket isn't used
# meanwhile: the connection that was given up tries on until then. Of two with one ZMQ_ROUTING_ID a ROUTER
# with ZMQ_ROUTER_HANDOVER may hear neither.
# Seen with libzmq 4.3.5, pyzmq 27.3.0: 1 connection at first, 2 afterwards.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python
python/bin/pip install -q pyzmq==27.3.0

cat >twice.py <<'PY'
from time import sleep

import zmq
from zmq.utils.monitor import recv_monitor_message


def server(address):
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(address)
    return socket


def handshakes():
    count = 0
    while monitor.poll(300):
        event = recv_monitor_message(monitor)["event"]
        count += event == zmq.EVENT_HANDSHAKE_SUCCEEDED
    return count


first = server("tcp://127.0.0.1:*")
address = first.getsockopt_string(zmq.LAST_ENDPOINT)
client = zmq.Context().socket(zmq.DEALER)
monitor = client.get_monitor_socket()
client.connect(address)
print(handshakes())

first.context.destroy(0)
while recv_monitor_message(monitor)["event"] != zmq.EVENT_DISCONNECTED:
    pass
client.disconnect(address)
client.connect(address)
second = server(address)
sleep(1)
print(handshakes())
client.context.destroy(0)
PY
python/bin/python -c "import zmq; print(zmq.zmq_version())"
python/bin/python twice.py | tee output
printf '1\n2\n' | cmp - output
