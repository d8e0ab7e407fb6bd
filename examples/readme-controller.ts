import { createController } from "lazygraph";

const endpoint = process.env["LAZYGRAPH_ENDPOINT"] ?? "tcp://127.0.0.1:5757";
const stopping = new AbortController();
process.once("SIGTERM", () => stopping.abort());
try {
  const controller = createController({ mode: "idle", endpoint, signal: stopping.signal });
  await controller.start();
  console.log(`LAZYGRAPH_ENDPOINT=${controller.endpoint} vllm serve MODEL`);

  const signal = AbortSignal.timeout(600_000);
  const { engine, ...its } = await controller.waitForEngine({ phase: "serving", signal });
  console.log(`${engine} (${its.mode}) serves with ${its.graphsCaptured} of ${its.graphsPlanned}`);
} catch (error) {
  if (!stopping.signal.aborted) console.error(`${error} [${Object(error).code}]`); // Why it can't go on.
  process.exit(stopping.signal.aborted ? 0 : 1);
}
