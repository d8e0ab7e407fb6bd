/**
 * A Python with OpenAI's client, for the gateway's tests: an environment outside the clone, made
 * once (some seconds) and kept. LAZYGRAPH_OPENAI_PYTHON names a Python that has it already.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, ensureVenv } from "./python.mjs";

const OPENAI = "3.54.0";
const INSTALL_TIMEOUT_MS = 300_000;

const folder = join(cacheFolder(), `openai-${OPENAI}`);

/** The one that is named or was made before, or undefined: nothing is installed. */
export function knownOpenaiPython() {
  const named = process.env.LAZYGRAPH_OPENAI_PYTHON;
  if (named) return named;
  return existsSync(join(folder, ".complete")) ? join(folder, "bin", "python") : undefined;
}

/** The one that is named, or the environment, made where it is missing. Throws a sentence. */
export function ensureOpenaiPython() {
  const named = process.env.LAZYGRAPH_OPENAI_PYTHON;
  if (named) return named;
  if (knownOpenaiPython() === undefined) {
    console.error(`# OpenAI's client for Python, ${OPENAI}, in ${folder} (only this once)`);
  }
  return ensureVenv(folder, [[`openai==${OPENAI}`]], { timeoutMs: INSTALL_TIMEOUT_MS });
}
