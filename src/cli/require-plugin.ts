/** Whether a command's Python has our plugin, before it starts. */

import { LazygraphError } from "../base/errors.ts";
import { quote } from "./errors.ts";
import { PLUGIN_PACKAGE, pluginRemedy, probePlugin } from "./plugin-probe.ts";

/**
 * Nothing where it can't be known: launchers and containers are normal, and told only if no
 * engine joins.
 *
 * @param having a Python that is known to have it
 * @throws LazygraphError `ERR_LAZYGRAPH_PLUGIN_MISSING`
 */
export async function requirePlugin(
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
  having?: string,
): Promise<void> {
  const probe = await probePlugin(command, environment, having);
  switch (probe.found) {
    case "yes":
      return;
    case "unknown":
      return;
    case "excluded":
      throw new LazygraphError(
        "ERR_LAZYGRAPH_PLUGIN_MISSING",
        `Expected VLLM_PLUGINS to contain "lazygraph", got ${quote(probe.allowed)}: ` +
          "add it, or unset the variable.",
      );
    case "no":
      if (!probe.vllm) {
        throw new LazygraphError(
          "ERR_LAZYGRAPH_PLUGIN_MISSING",
          `Expected vLLM and the plugin ${PLUGIN_PACKAGE} in ${probe.python}, which has neither: ` +
            "give the command with the Python that vLLM is installed in.",
        );
      }
      throw new LazygraphError(
        "ERR_LAZYGRAPH_PLUGIN_MISSING",
        `Expected the plugin ${PLUGIN_PACKAGE} in ${probe.python}, which hasn't got it: ` +
          `run ${pluginRemedy(probe.python)}.`,
      );
  }
}
