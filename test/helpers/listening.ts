import { once } from "node:events";
import type { AddressInfo, Server } from "node:net";
import { onTestFinished } from "vitest";

type Own = Server & { closeAllConnections?(): void };

/** Its URL; it is gone with the test. */
export async function listening(own: Own, port = 0): Promise<string> {
  onTestFinished(() => {
    own.close();
    own.closeAllConnections?.();
  });
  await once(own.listen(port, "127.0.0.1"), "listening");
  return `http://127.0.0.1:${(own.address() as AddressInfo).port}`;
}
