#!/bin/sh
# A server that was away for a moment comes back into undici's BalancedPool, and gets a seventh of the
# requests where it had a half. Each connection that fails takes 15 of a server's 100 points, each that
# is made gives 15 back, and answers give none. So a server that failed seven times, and then serves
# over one connection that is kept alive, stays at 16 points; a burst, which needs more connections,
# heals the pool.
# Seen with undici 7.30.2, on two servers that are asked one request after another, 200 at once in
# between: the output below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit undici@7.30.2 >>npm.log 2>&1

cat >share.mjs <<'JS'
import { once } from "node:events";
import { createServer } from "node:http";
import { BalancedPool } from "undici";

async function listen(name, port) {
  const server = createServer((_, response) => response.end(name));
  server.keepAliveTimeout = 60_000;
  await once(server.listen(port, "127.0.0.1"), "listening");
  return server;
}
const first = await listen("first", 0);
let second = await listen("second", 0);
const ports = [first, second].map((server) => server.address().port);
const pool = new BalancedPool(ports.map((port) => `http://127.0.0.1:${port}`));

async function ask() {
  try {
    return await (await pool.request({ path: "/", method: "GET" })).body.text();
  } catch (error) {
    return error.code;
  }
}
function print(when, answers) {
  const counts = {};
  for (const answer of answers.sort()) counts[answer] = (counts[answer] ?? 0) + 1;
  console.log(`${when}:`, JSON.stringify(counts));
}
async function inTurn(when, number) {
  const answers = [];
  while (answers.length < number) answers.push(await ask());
  print(when, answers);
}

await inTurn("both", 200);
second.closeAllConnections();
await new Promise((closed) => second.close(closed));
await inTurn("second away", 400);
second = await listen("second", ports[1]);
await inTurn("second back", 1000);
await inTurn("a while later", 1000);
await Promise.all(Array.from({ length: 200 }, ask));
await inTurn("after 200 at once", 1000);
process.exit();
JS
timeout 60 node share.mjs | tee output
cat >expected <<'TXT'
both: {"first":100,"second":100}
second away: {"ECONNREFUSED":10,"first":390}
second back: {"first":871,"second":129}
a while later: {"first":862,"second":138}
after 200 at once: {"first":500,"second":500}
TXT
cmp expected output
