#!/bin/sh
# With undici's interceptor `deduplicate`, who asks what another one is asking already shares the other's
# patience too: when the first one's signal aborts, all that came after it fail as well, whatever time
# they had. `request` gives them a TimeoutError that isn't theirs, `fetch` says that it failed. So one
# health check with a short timeout fails those of everybody else, before a server that would have
# answered them; its documentation says that all receive the complete response.
# Seen with undici 7.30.2 (and 8.13.1) before a server that answers after half a second: the output
# below, for three that ask at once, of which the second has no timeout and the third has 10 s.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >npm.log
npm install --no-json --ignore-scripts --no-audit undici@7.30.2 >>npm.log 2>&1

cat >ask.mjs <<'JS'
import { createServer } from "node:http";
import { Agent, fetch, interceptors, request } from "undici";

let asked = 0;
const server = createServer((_, answer) => {
  asked += 1;
  setTimeout(() => answer.end("ok"), 500);
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const url = `http://127.0.0.1:${server.address().port}/health`;
const asks = {
  request: async (options) => (await request(url, options)).body.text(),
  fetch: async (options) => (await fetch(url, options)).text(),
};
for (const [name, compose] of [
  ["alone", (agent) => agent],
  ["deduplicate", (agent) => agent.compose(interceptors.deduplicate())],
]) {
  for (const [by, ask] of Object.entries(asks)) {
    for (const patience of [[10_000, undefined, 10_000], [100, undefined, 10_000]]) {
      asked = 0;
      const agent = new Agent();
      const dispatcher = compose(agent);
      const said = patience.map((ms) => {
        const signal = ms === undefined ? undefined : AbortSignal.timeout(ms);
        return ask({ dispatcher, signal }).catch((error) => error.name);
      });
      const all = (await Promise.all(said)).join(", ");
      console.log(`${name}, ${by}, ${patience[0]} ms first: ${all}; asked ${asked}`);
      await agent.destroy();
    }
  }
}
server.closeAllConnections();
server.close();
JS
timeout 60 node ask.mjs | tee output
cat >expected <<'TXT'
alone, request, 10000 ms first: ok, ok, ok; asked 3
alone, request, 100 ms first: TimeoutError, ok, ok; asked 3
alone, fetch, 10000 ms first: ok, ok, ok; asked 3
alone, fetch, 100 ms first: TimeoutError, ok, ok; asked 3
deduplicate, request, 10000 ms first: ok, ok, ok; asked 1
deduplicate, request, 100 ms first: TimeoutError, TimeoutError, TimeoutError; asked 1
deduplicate, fetch, 10000 ms first: ok, ok, ok; asked 1
deduplicate, fetch, 100 ms first: TimeoutError, TypeError, TypeError; asked 1
TXT
cmp expected output
