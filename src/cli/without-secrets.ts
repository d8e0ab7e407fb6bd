/** A command line for a file that is shared: what its options call a key or a token is left out. */
export function withoutSecrets(command: readonly string[]): string {
  const secret = /key|token|secret|password/i;
  return command
    .map((word, index) => {
      const [option, value] = word.split(/=(.*)/s);
      if (value !== undefined && secret.test(option ?? "")) return `${option}=…`;
      const before = command[index - 1] ?? "";
      const hidden = before.startsWith("-") && !before.includes("=") && secret.test(before);
      return hidden && !word.startsWith("-") ? "…" : word;
    })
    .join(" ");
}
