import { once } from "node:events";
import type { AddressInfo, Server } from "node:net";

/** Its URL; whoever asks closes it. */
export async function listen(own: Server, port = 0): Promise<URL> {
  await once(own.listen(port, "127.0.0.1"), "listening");
  return new URL(`http://127.0.0.1:${(own.address() as AddressInfo).port}`);
}
