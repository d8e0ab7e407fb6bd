import type { Server } from "node:net";
import { onTestFinished } from "vitest";
import { listen } from "./listen.ts";

type Own = Server & { closeAllConnections?(): void };

/** Its URL; it is gone with the test. */
export async function listening(own: Own, port = 0): Promise<string> {
  onTestFinished(() => {
    own.close();
    own.closeAllConnections?.();
  });
  return (await listen(own, port)).origin;
}
