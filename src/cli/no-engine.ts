/** What `lazygraph run` says when no engine joins. Only what is known from here. */

import { PLUGIN_PACKAGE } from "./plugin-probe.ts";

/** Whether the environment switches the plugin off, as the plugin itself reads it. */
export function isDisabled(environment: NodeJS.ProcessEnv): boolean {
  const value = environment["LAZYGRAPH_DISABLE"]?.trim().toLowerCase() ?? "";
  return ["1", "true", "yes", "on"].includes(value);
}

/** After a while without one. */
export function noEngineSentence(endpoint: string, seconds: number): string {
  return (
    `No engine has joined within ${seconds} s; if one is running it serves by its own defaults. ` +
    `Its Python may lack ${PLUGIN_PACKAGE}, or it can't reach ${endpoint}, as from a container: ` +
    "its log says what the plugin did."
  );
}
