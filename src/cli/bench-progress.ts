/** The benchmark's progress on stderr: a bar for each cell on a terminal, plain lines elsewhere. */

import { SingleBar } from "cli-progress";
import { printable } from "../base/printable.ts";
import type { MatrixProgress } from "../bench/matrix.ts";
import type { RunHead } from "../bench/samples.ts";
import type { CellName } from "../bench/spec.ts";

export interface BenchProgress extends MatrixProgress {
  line(text: string): void;
  stop(): void;
}

/** Of plain lines about one phase. */
const LINE_MS = 10_000;

export function createBenchProgress(quiet: boolean): BenchProgress {
  if (quiet) return silent();
  return process.stderr.isTTY ? bars() : lines();
}

function write(text: string): void {
  process.stderr.write(`lazygraph: ${printable(text)}\n`);
}

/** `1 run`, `2 runs`. */
export function counted(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`;
}

function silent(): BenchProgress {
  const nothing = (): void => undefined;
  return {
    cell: nothing,
    phase: nothing,
    requests: nothing,
    cellDone: (head) => complain(head),
    line: nothing,
    stop: nothing,
  };
}

/** A partial run is told whatever else is not. */
function complain(head: RunHead): void {
  if (head.status !== "complete") write(doneText(head));
}

function doneText({ cell, status, reason, times }: RunHead): string {
  const ready = times.readySeconds === undefined ? "" : `, ready at ${seconds(times.readySeconds)}`;
  const why = reason === undefined ? "" : `: ${reason}`;
  return `${nameOf(cell)} ${status}${ready}${why}`;
}

function seconds(value: number): string {
  return `${value.toFixed(2)} s`;
}

function nameOf({ mode, load, run }: CellName): string {
  return `${mode}, ${load}, run ${run}`;
}

function lines(): BenchProgress {
  let where = "";
  let toldAtMs = 0;
  return {
    cell(name, place, total) {
      where = nameOf(name);
      write(`${where} (cell ${place} of ${total})`);
    },
    phase(text) {
      toldAtMs = performance.now();
      write(`${where}: ${text}`);
    },
    requests(done, failed, total) {
      const now = performance.now();
      if (now - toldAtMs < LINE_MS && done < total) return;
      toldAtMs = now;
      write(`${where}: ${done} of ${total} requests, ${failed} failed`);
    },
    cellDone: (head) => write(doneText(head)),
    line: write,
    stop: () => undefined,
  };
}

function bars(): BenchProgress {
  let bar: SingleBar | undefined;
  let failed = 0;
  const stop = (): void => {
    if (bar?.isActive === true) bar.stop();
    bar = undefined;
  };
  return {
    cell(name, place, total) {
      failed = 0;
      bar = new SingleBar({
        stream: process.stderr,
        format: `${place}/${total} ${nameOf(name)} [{bar}] {value} of {total}, {failed} failed, {phase}`,
        barsize: 20,
        gracefulExit: false,
      });
      bar.start(0, 0, { failed, phase: "starting" });
    },
    phase: (text) => bar?.update({ phase: text }),
    requests(done, now, total) {
      failed = now;
      bar?.setTotal(total);
      bar?.update(done, { failed });
    },
    cellDone(head) {
      stop();
      write(doneText(head));
    },
    line: write,
    stop,
  };
}
