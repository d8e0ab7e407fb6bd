/** The demo's progress on stderr: a bar for each mode on a terminal, plain lines elsewhere. */

import { SingleBar } from "cli-progress";
import type { Mode } from "../wire/protocol.ts";
import type { ModeProgress } from "./demo-mode.ts";

export interface DemoProgress extends ModeProgress {
  stop(): void;
}

export function createDemoProgress(requests: number): DemoProgress {
  return process.stderr.isTTY ? bars(requests) : lines(requests);
}

function bars(total: number): DemoProgress {
  let bar: SingleBar | undefined;
  const stop = (): void => {
    if (bar?.isActive === true) bar.stop();
    bar = undefined;
  };
  return {
    begin(mode) {
      bar = new SingleBar({
        stream: process.stderr,
        format: `${mode.padEnd(5)} [{bar}] {value} of {total} requests, graphs {graphs}{ready}`,
        barsize: 24,
        gracefulExit: false,
      });
      bar.start(total, 0, { graphs: "-", ready: "" });
    },
    update: (requests, graphs) => bar?.update(requests, { graphs: graphs || "-" }),
    ready: (seconds) => bar?.update({ ready: `, ready at ${seconds.toFixed(2)} s` }),
    end: stop,
    stop,
  };
}

/** For logs: the start of a mode, ready, each half of the requests. */
function lines(total: number): DemoProgress {
  let mode: Mode = "eager";
  let halves = 0;
  const line = (text: string): void => void process.stderr.write(`lazygraph: ${mode}: ${text}\n`);
  return {
    begin(next) {
      mode = next;
      halves = 0;
      line("starting the controller and the simulated engine");
    },
    update(requests, graphs) {
      const half = Math.floor((2 * requests) / total);
      if (half <= halves) return;
      halves = half;
      line(`${requests} of ${total} requests, graphs ${graphs}`);
    },
    ready: (seconds) => line(`ready at ${seconds.toFixed(2)} simulated seconds`),
    end: () => undefined,
    stop: () => undefined,
  };
}
