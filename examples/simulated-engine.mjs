// A simulated engine in a process of its own: it speaks the real protocol and needs no GPU.
import { startSimulatedEngine } from "lazygraph/testing";

const endpoint = process.env["LAZYGRAPH_ENDPOINT"] ?? "tcp://127.0.0.1:5757";
const engine = await startSimulatedEngine({ endpoint, mode: "idle", speed: 4 });
await engine.waitFor("ready");
console.log(`simulated engine ${engine.pid} serves; Ctrl-C ends it`);
await engine.exited;
