import { createController } from "lazygraph";

try {
  const endpoint = process.env["LAZYGRAPH_ENDPOINT"] ?? "tcp://127.0.0.1:5757";
  const controller = createController({ mode: "idle", endpoint });
  await controller.start();
  process.once("SIGTERM", () => void controller.close());
  console.log(`LAZYGRAPH_ENDPOINT=${controller.endpoint} vllm serve MODEL`);

  const signal = AbortSignal.timeout(600_000);
  const { engine, ...its } = await controller.waitForEngine({ phase: "serving", signal });
  console.log(`${engine} (${its.mode}) serves after ${its.captureBeforeReadySeconds} s of capture`);
  console.log(`with ${its.graphsCaptured} of ${its.graphsPlanned} graphs.`);
} catch (error) {
  console.error(`${error}`); // One sentence: no engine in time, or an address that is taken.
  process.exit(1);
}
