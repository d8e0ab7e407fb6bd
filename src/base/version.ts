import { readFileSync } from "node:fs";

let version: string | undefined;

/** The version of this package; `unknown` where a bundler has left its package.json behind. */
export function packageVersion(): string {
  version ??= readVersion() ?? "unknown";
  return version;
}

function readVersion(): string | undefined {
  try {
    const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
    const about = JSON.parse(text) as { readonly name?: unknown; readonly version?: unknown };
    // In a bundle that file is the application's.
    const own = about.name === "lazygraph" && typeof about.version === "string";
    return own ? (about.version as string) : undefined;
  } catch {
    return undefined;
  }
}
