/** A mode as files and reports have it: without keys, tokens and passwords. Pure. */

import { hideSecretOptions, hideSecretVariables } from "../base/secrets.ts";
import { shownUrl } from "../measure/server-address.ts";
import { defined } from "./fields.ts";
import type { ModeSpec } from "./spec.ts";

export function storedMode(mode: ModeSpec): ModeSpec {
  const { command, url, env } = mode;
  return {
    ...mode,
    ...defined<Pick<ModeSpec, "command" | "url" | "env">>({
      command: command && hideSecretOptions(command),
      url: url === undefined ? undefined : shownUrl(url),
      env: env && hideSecretVariables(env),
    }),
  };
}
