import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "../../helpers/folder.ts";

/** The shipped profile, but for the seconds that loading takes. */
export async function quickProfile(startupSeconds = 0.05): Promise<string> {
  const shipped = new URL("../../../profiles/llama-3.1-8b-h200.json", import.meta.url);
  const profile = JSON.parse(await readFile(shipped, "utf8")) as Record<string, unknown>;
  const file = join(await temporaryFolder(), "quick.json");
  await writeFile(file, JSON.stringify({ ...profile, startupSeconds }));
  return file;
}
