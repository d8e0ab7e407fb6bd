/** A program whose output is kept until it has ended, so that two can run beside each other. */
import { spawn } from "node:child_process";

/**
 * What it wrote to stdout and stderr, in the order in which it came, and its exit code: null where
 * it was ended by a signal, by us after `timeout` milliseconds included. Never rejects.
 */
export function kept(file, args, options) {
  return new Promise((resolve) => {
    const chunks = [];
    const child = spawn(file, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk) => chunks.push(chunk));
    }
    const end = (status) => resolve({ status, output: Buffer.concat(chunks).toString() });
    child.once("error", (error) => {
      chunks.push(Buffer.from(`${file}: ${error.message}\n`));
      end(1);
    });
    child.once("close", end);
  });
}
