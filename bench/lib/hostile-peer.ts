/**
 * One peer that means no good, for `npm run bench:trust-socket`: it joins, and sends inventories as
 * large as they may be, 70 a second.
 *
 *   node --import tsx bench/lib/hostile-peer.ts ENDPOINT
 */

import { Dealer } from "zeromq";
import { encode } from "../../src/wire/codec.ts";
import { LIMITS } from "../../src/wire/protocol.ts";

const FRAMES_PER_SECOND = 70;
const [endpoint] = process.argv.slice(2);
if (endpoint === undefined) throw new Error("Expected the controller's endpoint, got none.");
const hello = encode({
  type: "hello",
  versionMin: 1,
  versionMax: 2,
  engine: "hostile",
  session: "hostile",
  pluginVersion: "0.1.0",
  vllmVersion: "0.33.0",
  model: "hostile",
  host: "hostile",
  pid: process.pid,
  phase: "loading",
  mode: "idle",
  tensorParallel: 1,
  pipelineParallel: 1,
  simulated: "hostile",
});
const inventory = encode({
  type: "inventory",
  phase: "serving",
  graphs: Array.from({ length: LIMITS.graphs }, (_, n) => ({
    id: `FULL:${n + 1}`,
    kind: "FULL" as const,
    tokens: n + 1,
    requests: n + 1,
    uniform: 1,
  })),
  captured: Array.from({ length: LIMITS.graphs / 2 }, (_, n) => ({
    graph: `FULL:${n + 1}`,
    ms: 1,
    bytes: 1,
  })),
  ranks: [],
  cudagraphMode: "FULL",
  layers: 32,
  maxRequests: LIMITS.graphs,
  maxBatchedTokens: LIMITS.graphs,
  kvCacheTokens: 1,
  epoch: 1,
});
const dealer = new Dealer({ linger: 0, sendTimeout: 0 });
dealer.connect(endpoint);
await dealer.send(hello);
await dealer.receive();
process.send?.("joined");
// Its answers are read, so that nothing keeps it from going on.
void (async () => {
  for await (const _ of dealer);
})();
let isSending = false;
setInterval(() => {
  if (isSending) return;
  isSending = true;
  dealer
    .send(inventory)
    .catch(() => dealer.send(hello))
    .catch(() => undefined)
    .finally(() => {
      isSending = false;
    });
}, 1000 / FRAMES_PER_SECOND);
process.on("disconnect", () => process.exit(0));
