import { hideSecretOptions } from "../base/secrets.ts";

/** A command line for a file that is shared: what its options call a key or a token is left out. */
export function withoutSecrets(command: readonly string[]): string {
  return hideSecretOptions(command).join(" ");
}
