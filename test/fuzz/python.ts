/** The plugin's decoder, in a process of its own, fed with the same frames. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { workerPython } from "../../bench/lib/worker-python.ts";

const WORKER = fileURLToPath(new URL("../../worker", import.meta.url));

export interface PythonResult {
  readonly frames: number;
  readonly messages: number;
  readonly unknown: number;
  readonly refused: number;
  /** Frames with another end than these, in hexadecimal, with the reason. */
  readonly faults: readonly { readonly hex: string; readonly why: string }[];
}

/** @param frames in the order in which they are sent */
export async function decodeInPython(frames: Iterable<Uint8Array>): Promise<PythonResult> {
  const child = spawn(workerPython(), [`${WORKER}/tests/fuzz_decoder.py`], {
    env: { ...process.env, PYTHONPATH: `${WORKER}/src` },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const answer = text(child.stdout);
  for (const frame of frames) {
    const head = Buffer.alloc(4);
    head.writeUInt32LE(frame.byteLength);
    child.stdin.write(head);
    if (!child.stdin.write(frame)) await once(child.stdin, "drain");
  }
  child.stdin.end();
  const [code] = await once(child, "exit");
  if (code !== 0) throw new Error(`Expected the decoder's process to end well, got ${code}.`);
  return JSON.parse(await answer) as PythonResult;
}
