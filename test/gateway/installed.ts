/** The example gateway as a stranger runs it: its folder copied, the package out of its tarball. */

import { cp } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "../helpers/folder.ts";
import { linkPacked, ROOT } from "../package/packed.ts";

/**
 * A copy of the example with what its package.json names. This package comes out of its tarball;
 * the others are those that are installed here, which have the very versions it asks for.
 */
export async function installExample(): Promise<string> {
  const folder = await temporaryFolder();
  await cp(join(ROOT, "examples", "gateway"), folder, { recursive: true });
  await linkPacked(folder);
  return folder;
}
