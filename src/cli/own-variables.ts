/** Our variables that a command sets for itself, as `env NAME=VALUE … vllm serve MODEL` does. */

import { OptionError } from "../base/errors.ts";
import { withoutEnv } from "../launcher/python-of.ts";

/**
 * They count for this process, too: they reach the engine whatever is set here, and the two would
 * differ in its mode, its folders or in whether it is to be captured at all.
 */
export function takeVariables(command: readonly string[], environment: NodeJS.ProcessEnv): void {
  for (const [name, value] of Object.entries(withoutEnv(command).variables)) {
    // Where its controller is isn't the command's to say: it is told, or refused.
    if (name.startsWith("LAZYGRAPH_") && name !== "LAZYGRAPH_ENDPOINT") environment[name] = value;
  }
}

/** @throws OptionError where the command sets one that this process chooses for it */
export function refuseVariables(
  who: "run" | "calibrate" | "startup",
  command: readonly string[],
  names: readonly string[],
): void {
  const { variables } = withoutEnv(command);
  const name = names.find((each) => (variables[each] ?? "").trim() !== "");
  if (name === undefined) return;
  throw new OptionError(
    "--",
    `Expected \`${who}\` to choose ${name} for its command, got a command that sets it by ` +
      "`env`, which would win: leave it out there.",
  );
}
