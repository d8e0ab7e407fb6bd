/** The only place that makes ZeroMQ contexts. */

import { Context } from "zeromq";

/**
 * A context that keeps no process from ending.
 *
 * One that blocks, which is the default, waits for its sockets' messages when the process ends, and
 * writes a warning of its own to stderr where that takes half a second, which on a busy host it does
 * with nothing to send. Each socket here says by its linger for how long it still sends.
 */
export function ownContext(): Context {
  return new Context({ blocky: false });
}
