/** `lazygraph doctor -- vllm serve MODEL …`: lazily or as stock, before anything starts. */

import { OptionError } from "../base/errors.ts";
import { hideSecretOptions } from "../base/secrets.ts";
import { EXIT } from "./errors.ts";
import type { ParsedOptions } from "./options.ts";
import { askPreflight } from "./preflight.ts";
import { preflightText } from "./preflight-text.ts";
import { vllmCommand } from "./vllm-command.ts";

/** The exit code: told, in either way, or not. */
export async function runPreflight(
  options: ParsedOptions,
  command: readonly string[],
): Promise<number> {
  for (const name of ["for", "versions"]) {
    if (!options.strings.has(name) && !options.flags.has(name)) continue;
    const sentence = `Expected no --${name} with a command: it isn't about one command.`;
    throw new OptionError(`--${name}`, sentence);
  }
  if (command.length === 0 || command[0] === "") {
    throw new OptionError("--", "Expected a command after `--`, such as `vllm serve MODEL`.");
  }
  const server = vllmCommand(command);
  const answer = await askPreflight(server, process.env, options.strings.get("python"));
  // An answer is what people show when they ask why.
  const shown = hideSecretOptions(command);
  process.stdout.write(
    options.flags.has("json")
      ? `${JSON.stringify({ command: shown, ...answer })}\n`
      : `${preflightText(shown, answer)}\n`,
  );
  return answer.lazily === null ? EXIT.failure : EXIT.ok;
}
