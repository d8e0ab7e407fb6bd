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

/** ZMQ_ZERO_COPY_RECV of zmq.h, which zeromq.js has no name for. */
const ZERO_COPY_RECEIVE = 10;

/** Reaches the options that zeromq.js has no names for. */
class FrameContext extends Context {
  constructor() {
    super({ blocky: false });
    this.setBoolOption(ZERO_COPY_RECEIVE, false);
  }
}

/**
 * The same, with frames in memory of their own size. By default libzmq hands on its whole buffer of
 * 8 KiB with each of them, which the garbage collector gives back in its own time: 80 MB a second of
 * 1,000 engines.
 */
export function frameContext(): Context {
  return new FrameContext();
}
