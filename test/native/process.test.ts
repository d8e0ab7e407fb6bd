/** What the addon does to the process it lives in: nothing, whatever happens around it. */

import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { ADDON, FAKE_NVML, nvmlScript, ROOT, scratch } from "../gpu-memory/fake.ts";

interface End {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program in a Node of its own, on a device whose free memory goes up and down for ever. */
async function child(program: string, script: readonly string[] = storm()): Promise<End> {
  const file = join(scratch(), "child.mts");
  writeFileSync(file, program);
  const env = {
    ...process.env,
    LAZYGRAPH_NVML_PATH: FAKE_NVML,
    LAZYGRAPH_FAKE_NVML: nvmlScript(script),
    ADDON,
    MEMORY: pathToFileURL(join(ROOT, "src/gpu/memory.ts")).href,
  };
  const tsx = pathToFileURL(join(ROOT, "node_modules/tsx/dist/esm/index.mjs")).href;
  const running = spawn(process.execPath, ["--import", tsx, file], { env, timeout: 110_000 });
  let stdout = "";
  let stderr = "";
  running.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  running.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    running.once("error", reject);
    running.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

function storm(): string[] {
  const free = Array.from({ length: 2000 }, (_, i) => (i % 2 === 0 ? 900 : 1));
  return [`device GPU-a total=1000 free=${free}`];
}

const OPEN = `
const { openGpuMemory } = await import(process.env.MEMORY!);
const memory = await openGpuMemory({ sources: ["nvml"] });
const options = { uuid: "GPU-a", intervalMs: 10, belowBytes: 500, hysteresisBytes: 100 };
`;

const RAW = `
import { createRequire } from "node:module";
const addon = createRequire(import.meta.url)(process.env.ADDON!);
const session = await addon.open(process.env.LAZYGRAPH_NVML_PATH!);
const options =
  { uuid: "GPU-a", intervalMs: 1, belowBytes: 500, hysteresisBytes: 100, withinSeconds: 0 };
`;

const clean = { code: 0, signal: null, stderr: "" };

describe("a process with the addon", () => {
  it("finds the library through its environment", async () => {
    const end = await child(`${OPEN} console.log((await memory.devices())[0].uuid);`);
    expect(end).toMatchObject({ ...clean, stdout: "GPU-a\n" });
  });

  it("ends by itself although a watch is open", async () => {
    const end = await child(`${OPEN} await memory.watch(options, () => {}); console.log("end");`);
    expect(end).toMatchObject({ ...clean, stdout: "end\n" });
  });

  it("does not end while a close is awaited", async () => {
    const end = await child(`${OPEN}
      const watch = await memory.watch(options, () => {});
      await watch.close();
      await memory.watch(options, () => {});
      await memory.close();
      console.log("closed");`);
    expect(end).toMatchObject({ ...clean, stdout: "closed\n" });
  });

  it("ends at once by process.exit in a callback, with threads running", async () => {
    const end = await child(`${OPEN}
      for (let i = 0; i < 20; i += 1) await memory.watch(options, () => process.exit(7));
      setInterval(() => {}, 1000);`);
    expect(end).toMatchObject({ ...clean, code: 7 });
  });

  it("gets an uncaught exception of its own as ever, with threads running", async () => {
    const end = await child(`${OPEN}
      await memory.watch(options, () => setImmediate(() => { throw new Error("mine"); }));
      setInterval(() => {}, 1000);`);
    expect(end).toMatchObject({ code: 1, signal: null });
    expect(end.stderr).toContain("Error: mine");
  });

  it("survives a callback that throws below the library", async () => {
    const end = await child(`${RAW}
      let calls = 0;
      const keep = setInterval(() => {}, 1000);
      const watch = session.watch(options, () => {
        calls += 1;
        if (calls === 50) { watch.close(); clearInterval(keep); }
        throw new Error("thrown into the addon");
      });
      await watch.closed;
      console.log(calls);`);
    expect(end).toMatchObject({ ...clean, stdout: "50\n" });
  });

  it("survives garbage collection of everything while a survey and a watch are under way", async () => {
    const end = await child(`${RAW}
      import v8 from "node:v8";
      import vm from "node:vm";
      v8.setFlagsFromString("--expose-gc");
      const gc = vm.runInNewContext("gc");
      let seen = 0;
      for (let i = 0; i < 20; i += 1) {
        let other = await addon.open(process.env.LAZYGRAPH_NVML_PATH!);
        const devices = other.devices();
        other.watch(options, () => { seen += 1; });
        other.close();
        other = undefined;
        gc();
        await devices;
        gc();
      }
      while (seen < 100) { await new Promise((resolve) => setImmediate(resolve)); }
      console.log("alive");`);
    expect(end).toMatchObject({ ...clean, stdout: "alive\n" });
  });

  it("takes many opens and closes of one library", async () => {
    const end = await child(`${RAW}
      for (let i = 0; i < 300; i += 1) {
        const sessions = await Promise.all([1, 2, 3].map(() => addon.open(process.env.LAZYGRAPH_NVML_PATH!)));
        for (const one of sessions) one.close();
        try { sessions[0].read("GPU-a"); console.log("read after close"); } catch {}
      }
      console.log(session.read("GPU-a").totalBytes);`);
    expect(end).toMatchObject({ ...clean, stdout: "1000\n" });
  });
});

describe("worker threads with the addon", () => {
  const worker = (body: string): string => `
    import { Worker } from "node:worker_threads";
    const code = \`
      const { parentPort } = require("node:worker_threads");
      const addon = require(process.env.ADDON);
      addon.open(process.env.LAZYGRAPH_NVML_PATH).then((session) => {
        const options =
          { uuid: "GPU-a", intervalMs: 1, belowBytes: 500, hysteresisBytes: 100, withinSeconds: 0 };
        ${body}
      });\`;
    const start = () => new Worker(code, { eval: true, execArgv: [] });
  `;

  it("have watches of their own and end by themselves", async () => {
    const end = await child(`${worker(`
        const watch = session.watch(options, (event) => {
          parentPort.postMessage(event.kind);
          watch.close();
        });
        watch.closed.then(() => clearInterval(keep));
        const keep = setInterval(() => {}, 1000);
      `)}
      const kinds = await Promise.all(Array.from({ length: 4 }, () => new Promise((resolve) => {
        const one = start();
        let kind;
        one.on("message", (message) => { kind = message; });
        one.on("exit", (code) => resolve(kind + code));
      })));
      console.log(kinds.join());`);
    expect(end).toMatchObject({ ...clean, stdout: "below0,below0,below0,below0\n" });
  });

  it("can be terminated in the middle of events, surveys and starts", async () => {
    const end = await child(`${worker(`
        for (let i = 0; i < 10; i += 1) session.watch(options, () => { session.read("GPU-a"); });
        const again = () => { session.devices().then(again); };
        for (let i = 0; i < 4; i += 1) again();
        parentPort.postMessage("running");
      `)}
      let ended = 0;
      for (let round = 0; round < 8; round += 1) {
        const workers = [start(), start(), start()];
        await Promise.all(workers.map((one) => new Promise((resolve) => one.once("message", resolve))));
        await Promise.all(workers.map((one) => one.terminate()));
        ended += workers.length;
      }
      console.log(ended);`);
    expect(end).toMatchObject({ ...clean, stdout: "24\n" });
  });
});
