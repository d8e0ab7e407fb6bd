/**
 * Where the engine of `lazygraph run` connects by default: a socket file in a folder that is this
 * user's alone. A port of loopback is open to everybody on the host.
 */

import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeLeftover, temporaryFolder } from "../base/leftovers.ts";

/** What a socket's path may have on Linux is 107 bytes, on others 103. */
const PATH_BYTES_MAX = 103;
export const LOOPBACK = "tcp://127.0.0.1:0";

interface PrivateEndpoint extends AsyncDisposable {
  readonly endpoint: string;
}

/** A free port of loopback where no folder can be made, or its path wouldn't do. */
export async function openPrivateEndpoint(parent: string = tmpdir()): Promise<PrivateEndpoint> {
  const folder = await temporaryFolder("lazygraph-run-", parent).catch(() => undefined);
  const remove = async (): Promise<void> => {
    // How the command has ended is what counts.
    if (folder !== undefined) await removeLeftover(folder).catch(() => undefined);
  };
  const path = folder === undefined ? "" : join(folder, "engine.sock");
  // Engines take several addresses, with commas or blanks between them.
  if (path === "" || /[\s,]/.test(path) || Buffer.byteLength(path) > PATH_BYTES_MAX) {
    await remove();
    return { endpoint: LOOPBACK, [Symbol.asyncDispose]: async () => undefined };
  }
  return { endpoint: `ipc://${path}`, [Symbol.asyncDispose]: remove };
}
