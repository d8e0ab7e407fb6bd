#!/bin/sh
# zeromq's typings say of send() and receive() that, while another one is pending, the call
# "will return a rejected promise with an `EBUSY` error". It throws instead, before there is a
# promise, so that `.catch()` on its result never runs.
# Seen with zeromq 6.8.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
# Its prebuilt binary lies in the package: no script has to run.
npm install --no-json --ignore-scripts --no-audit zeromq@6.8.0 >>npm.log 2>&1

cat >twice.mjs <<'JS'
import { Dealer } from "zeromq";
for (const call of ["send", "receive"]) {
  // Nobody listens there, so the first call stays pending.
  const socket = new Dealer({ immediate: true, linger: 0 });
  socket.connect("tcp://127.0.0.1:1");
  const again = () => (call === "send" ? socket.send("text") : socket.receive());
  again().catch(() => undefined);
  try {
    again().catch((error) => console.log(call, "rejects", error.code));
  } catch (error) {
    console.log(call, "throws", error.code);
  }
  socket.close();
}
JS
node twice.mjs | tee output
grep -q 'rejected promise with an `EBUSY` error' node_modules/zeromq/lib/index.d.ts
printf 'send throws EBUSY\nreceive throws EBUSY\n' | cmp - output
