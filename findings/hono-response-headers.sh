#!/bin/sh
# @hono/node-server puts a Response of its own in the place of Node's, for the whole process, and that
# shares the headers it's given where Fetch copies them. So a copy of what `fetch` answered, which Hono's
# page on proxies advises to make because those headers can't be changed, has the same ones: to add one
# throws "immutable". And of headers that several answers are given, one added to one is in the next too.
# 2.1.9 copies in the first case, but not where `headers` are given. Portkey's gateway asks for ^1.3.3: as
# its README starts it (`npx @portkey-ai/gateway`), every streamed chat is a 500.
# Seen with @hono/node-server 1.19.19 and 2.1.9 and @portkey-ai/gateway 1.15.2 on Node 20: the output below.
set -eu
folder=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || :; rm -rf "$folder"' EXIT
cd "$folder"
for version in 1.19.19 2.1.9; do
  mkdir "$version"
  echo '{ "overrides": { "@hono/node-server": "'$version'" } }' >"$version/package.json"
  npm install --prefix "$version" --no-json --ignore-scripts --no-audit @portkey-ai/gateway@1.15.2 >>npm.log 2>&1
done

cat >engine.mjs <<'JS'
import { createServer } from "node:http";
const server = createServer((request, response) => {
  request.resume();
  response.setHeader("content-type", "text/event-stream");
  response.end("data: [DONE]\n\n");
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
JS
cat >copies.mjs <<'JS'
const [version, engine] = process.argv.slice(2);
const common = new Headers({ "x-gateway": "g" });
const fetched = await fetch(engine);
function added(body, init) {
  const { headers } = new Response(body, init);
  try {
    headers.append("x-engine", "a");
  } catch (error) {
    return error.message;
  }
  return headers.get("x-engine");
}
if (version !== "Node") {
  const { getRequestListener } = await import(`./${version}/node_modules/@hono/node-server/dist/index.mjs`);
  getRequestListener(() => new Response("")); // As its serve() does.
}
console.log(`${version}: a copy ${added(fetched.clone().body, fetched)},`,
  `with its headers ${added(fetched.clone().body, { headers: fetched.headers })},`,
  `with common ones ${added("1", { headers: common })}; ${added("2", { headers: common })}`);
JS
node engine.mjs >url &
pids=$!
for _ in $(seq 100); do [ -s url ] && break || sleep 0.1; done
engine=$(cat url)
{
  node copies.mjs Node "$engine"
  port=$((${engine##*:} % 20000 + 30000))
  for version in 1.19.19 2.1.9; do
    node copies.mjs "$version" "$engine"
    port=$((port + 1))
    gateway=http://127.0.0.1:$port
    node "$version/node_modules/@portkey-ai/gateway/build/start-server.js" --headless --port=$port >>gateway.log 2>&1 &
    pids="$pids $!"
    curl -s -o ready --retry 60 --retry-connrefused --retry-delay 1 "$gateway"
    curl -s -o answer -w "Portkey with $version: %{http_code}\n" "$gateway/v1/chat/completions" \
      -H 'content-type: application/json' -H 'authorization: Bearer k' \
      -H 'x-portkey-provider: openai' -H "x-portkey-custom-host: $engine/v1" \
      -d '{ "model": "m", "stream": true, "messages": [{ "role": "user", "content": "So?" }] }'
  done
} >output
cat output
cat >expected <<'TXT'
Node: a copy a, with its headers a, with common ones a; a
1.19.19: a copy immutable, with its headers immutable, with common ones a; a, a
Portkey with 1.19.19: 500
2.1.9: a copy a, with its headers immutable, with common ones a; a, a
Portkey with 2.1.9: 200
TXT
cmp expected output
