import { readFileSync } from "node:fs";

let version: string | undefined;

/** The version of this package, wherever it is installed. */
export function packageVersion(): string {
  if (version === undefined) {
    const file = new URL("../package.json", import.meta.url);
    version = (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
  }
  return version;
}
