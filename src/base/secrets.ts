/** What a command or an environment calls a key or a token, left out of what is shown or kept. */

const SECRET = /key|token|secret|password/i;
const HIDDEN = "…";

/** Options of vLLM that count tokens and name tokenizers are none, though their names say token. */
const HARMLESS = /tokeniz|tokens\b|token-ids/i;

function isSecret(name: string): boolean {
  return SECRET.test(name) && !HARMLESS.test(name);
}

/** vLLM's takes one or more keys, and every other such option one value. */
const SEVERAL = /^-+api[-_]key$/i;

/**
 * The words of a command, with the values of secret options hidden: of those too that a shell is
 * given as one word (`sh -c "vllm serve …"`).
 */
export function hideSecretOptions(command: readonly string[]): string[] {
  let secretsLeft = 0;
  return command.map((word) => {
    const isOption = word.startsWith("-");
    if (secretsLeft > 0 && !isOption) {
      secretsLeft--;
      return HIDDEN;
    }
    const [option = "", value] = word.split(/=(.*)/s);
    const isSecretOption = !/\s/.test(option) && isSecret(option);
    secretsLeft = 0;
    if (value !== undefined && isSecretOption) return `${option}=${HIDDEN}`;
    if (isOption && isSecretOption) {
      secretsLeft = SEVERAL.test(option) ? Number.POSITIVE_INFINITY : 1;
    }
    return /\s/.test(word) ? hiddenInScript(word) : word;
  });
}

function hiddenInScript(script: string): string {
  const blanks = script.match(/\s+/g) ?? [];
  return hideSecretOptions(script.split(/\s+/))
    .map((word, at) => `${word}${blanks[at] ?? ""}`)
    .join("");
}

/** Variables with the values of secret ones hidden. */
export function hideSecretVariables(
  environment: Readonly<Record<string, string>>,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, isSecret(name) ? HIDDEN : value]),
  );
}
