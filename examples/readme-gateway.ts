import { createController } from "lazygraph";

const endpoint = process.env["LAZYGRAPH_ENDPOINT"] ?? "tcp://127.0.0.1:5757";
const controller = createController({ mode: "idle", endpoint });
await controller.start();
process.once("SIGTERM", () => void controller.close());
// Any vLLM started with this variable joins by itself; without a controller it serves all the same.
console.log(`LAZYGRAPH_ENDPOINT=${controller.endpoint} vllm serve MODEL`);

await controller.waitForEngine({ phase: "serving", signal: AbortSignal.timeout(600_000) });
for (const { engine, mode, ...its } of controller.engines()) {
  console.log(`${engine} (${mode}) serves after ${its.captureBeforeReadySeconds} s of capture`);
  console.log(`with ${its.graphsCaptured} of ${its.graphsPlanned} graphs.`);
}
