/** What a command or an environment calls a key or a token, left out of what is shown or kept. */

const SECRET = /key|token|secret|password/i;
const HIDDEN = "…";

/** Options of vLLM that count tokens and name tokenizers are none, though their names say token. */
const HARMLESS = /tokeniz|tokens\b|token-ids/i;

function isSecret(name: string): boolean {
  return SECRET.test(name) && !HARMLESS.test(name);
}

/** The words of a command, with the values of secret options hidden. */
export function hideSecretOptions(command: readonly string[]): string[] {
  return command.map((word, index) => {
    const [option, value] = word.split(/=(.*)/s);
    if (value !== undefined && isSecret(option ?? "")) return `${option}=${HIDDEN}`;
    const before = command[index - 1] ?? "";
    const hidden = before.startsWith("-") && !before.includes("=") && isSecret(before);
    return hidden && !word.startsWith("-") ? HIDDEN : word;
  });
}

/** Variables with the values of secret ones hidden. */
export function hideSecretVariables(
  environment: Readonly<Record<string, string>>,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, isSecret(name) ? HIDDEN : value]),
  );
}
