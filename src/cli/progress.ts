/**
 * Progress of captures on stderr: a bar on a terminal, a few plain lines elsewhere, and
 * the table when an engine is settled. Stdout belongs to the command.
 */

import cliProgress from "cli-progress";
import { printable } from "../base/printable.ts";
import type { Controller } from "../controller/controller.ts";
import { onEvent } from "../engine/events.ts";
import type { Log, LogLevel } from "./log.ts";
import { secondsText, settledTable } from "./table.ts";

/** More lines than this about misses and problems help nobody; the snapshot has them all. */
const COMPLAINTS_MAX = 20;

export interface FollowOptions {
  /** Prints nothing but problems. */
  readonly quiet?: boolean;
  /** Where lines go that are no terminal's. @default stderr, as `lazygraph: LINE` */
  readonly log?: Log;
  /** Called each time an engine is settled. */
  readonly onSettled?: () => void;
}

export interface Following {
  /** Whether any engine has joined so far. */
  joined(): boolean;
  /** Ends the progress; the table of an engine that never settled is printed now. */
  stop(): void;
}

/** Where progress goes. */
interface Sink {
  line(text: string, level?: LogLevel): void;
  captured(engine: string, captured: number, planned: number, last: string): void;
  settled(engine: string): void;
  stop(): void;
}

export function followEngines(controller: Controller, options: FollowOptions = {}): Following {
  const quiet = options.quiet === true;
  const { log } = options;
  const isTerminal = log === undefined && process.stderr.isTTY;
  const sink = quiet ? silentSink() : isTerminal ? bar() : lines(log);
  let joined = false;
  /** What each engine's latest table was about: captures that end twice are told once. */
  const tabled = new Map<string, string>();

  function table(name: string): void {
    const engine = controller.engines().find((candidate) => candidate.engine === name);
    if (engine === undefined) return;
    const { session, mode, graphsCaptured, graphsRefused, graphsFailed } = engine;
    const about = [session, mode, graphsCaptured, graphsRefused, graphsFailed].join(" ");
    if (tabled.get(name) === about) return;
    tabled.set(name, about);
    if (engine.unsupported !== undefined) {
      sink.line(`${printable(name)} ran as stock: ${printable(engine.unsupported)}`);
    }
    if (engine.graphsPlanned === 0) return;
    sink.line(settledTable(engine));
  }

  const complain = bounded(sink);
  const subscriptions = [
    onEvent("lazygraph:engine:join", ({ engine, model, mode, reconnected }) => {
      joined = true;
      if (!reconnected) tabled.delete(engine);
      sink.line(
        reconnected
          ? `${printable(engine)} is back`
          : `${printable(engine)} joined: ${printable(model)}, mode ${mode}`,
      );
    }),
    onEvent("lazygraph:engine:ready", ({ engine, ...event }) => {
      const graphs = `${event.graphsCaptured} of ${event.graphsPlanned} graphs`;
      sink.line(`${printable(engine)} is ready: ${graphs} in ${secondsText(event.captureSeconds)}`);
    }),
    onEvent("lazygraph:engine:memory", ({ line }) => sink.line(printable(line))),
    // The first refusal says it all; what comes later, a status shows.
    onEvent("lazygraph:memory:refused", ({ line, repeated }) => {
      if (!repeated) sink.line(printable(line));
    }),
    onEvent("lazygraph:memory:room", ({ line }) => complain(printable(line))),
    onEvent("lazygraph:memory:dropped", ({ line }) => complain(printable(line))),
    onEvent("lazygraph:capture:end", ({ engine, graph, ms, graphsCaptured, graphsPlanned }) => {
      const last = `${printable(graph)} ${ms.toFixed(0)} ms`;
      sink.captured(engine, graphsCaptured, graphsPlanned, last);
    }),
    onEvent("lazygraph:engine:settled", ({ engine, reason }) => {
      sink.settled(engine);
      sink.line(`${printable(engine)} is settled: ${printable(reason)}`);
      table(engine);
      options.onSettled?.();
    }),
    onEvent("lazygraph:engine:lost", ({ engine, reason, code, goodbye }) => {
      sink.settled(engine);
      sink.line(
        goodbye === undefined
          ? `${printable(engine)} is gone: ${printable(reason)} [${printable(code)}]`
          : `${printable(engine)} left: ${printable(goodbye)}`,
      );
    }),
    ...(quiet ? problems(lines(log)) : complaints(sink, complain)),
  ];

  return {
    joined: () => joined,
    stop() {
      for (const unsubscribe of subscriptions) unsubscribe();
      sink.stop();
      for (const { engine } of controller.engines()) if (!tabled.has(engine)) table(engine);
    },
  };
}

/** Prints up to a number of lines. */
function bounded(sink: Sink): (text: string) => void {
  let count = 0;
  return (text) => {
    count++;
    if (count <= COMPLAINTS_MAX) sink.line(text, "warn");
    if (count === COMPLAINTS_MAX) sink.line("more of this is not shown", "warn");
  };
}

/** What went wrong. */
function complaints(sink: Sink, complain: (text: string) => void): (() => void)[] {
  return [
    onEvent("lazygraph:capture:refused", ({ engine, graph, reason }) => {
      complain(`${printable(engine)} refused ${printable(graph)}: ${printable(reason)}`);
    }),
    onEvent("lazygraph:capture:failed", ({ engine, graph, reason }) => {
      complain(`${printable(engine)} failed to capture ${printable(graph)}: ${printable(reason)}`);
    }),
    ...problems(sink, complain),
  ];
}

/** The part of it that is an error; a graph that could not be captured is not. */
function problems(sink: Sink, complain: (text: string) => void = bounded(sink)): (() => void)[] {
  return [
    onEvent("lazygraph:problem", ({ engine, code, message }) => {
      const who = engine === "" ? "" : `${printable(engine)}: `;
      complain(`${who}${printable(message)} [${printable(code)}]`);
    }),
  ];
}

function silentSink(): Sink {
  const nothing = (): void => undefined;
  return { line: nothing, captured: nothing, settled: nothing, stop: nothing };
}

/** For logs: a line at each quarter of the plan. */
function lines(log?: Log): Sink {
  const quarters = new Map<string, number>();
  const line = (text: string, level: LogLevel = "info"): void => {
    if (log === undefined) process.stderr.write(`${prefixed(text)}\n`);
    else log.line(level, text);
  };
  return {
    line,
    captured(engine, captured, planned, last) {
      const quarter = planned === 0 ? 0 : Math.floor((4 * captured) / planned);
      if (quarter <= (quarters.get(engine) ?? 0)) return;
      quarters.set(engine, quarter);
      line(`${printable(engine)}: ${captured} of ${planned} graphs, last ${last}`);
    },
    settled: (engine) => void quarters.delete(engine),
    stop: () => undefined,
  };
}

const BAR = {
  barsize: 24,
  barCompleteString: "=".repeat(24),
  barIncompleteString: "-".repeat(24),
  barGlue: "",
};
const CLEAR_LINE = "\r\u001b[K";

/**
 * For a terminal: one bar over all engines, on one line, drawn when it changes.
 *
 * cli-progress formats it and we draw it: its own drawing saves the cursor's position when a bar
 * starts and goes back there when it ends, over what vLLM has logged to the same terminal meanwhile.
 */
function bar(): Sink {
  const filling = new Map<string, { captured: number; planned: number }>();
  let drawn = false;
  const clear = (): string => {
    const text = drawn ? CLEAR_LINE : "";
    drawn = false;
    return text;
  };
  const draw = (last: string): void => {
    const counts = [...filling.values()];
    const captured = counts.reduce((sum, count) => sum + count.captured, 0);
    const planned = counts.reduce((sum, count) => sum + count.planned, 0);
    const share = planned === 0 ? 0 : captured / planned;
    const text = `[${cliProgress.Format.BarFormat(share, BAR)}] ${captured} of ${planned} graphs, last ${last}`;
    // One column less than there are: a full line would wrap, and could then not be cleared. Some
    // terminals without a window say 0.
    const columns = (process.stderr.columns || 80) - 1;
    process.stderr.write(`${CLEAR_LINE}${prefixed(text).slice(0, columns)}`);
    drawn = true;
  };
  return {
    line(text) {
      process.stderr.write(`${clear()}${prefixed(text)}\n`);
    },
    captured(engine, captured, planned, last) {
      filling.set(engine, { captured, planned });
      draw(last);
    },
    settled(engine) {
      filling.delete(engine);
      if (filling.size === 0) process.stderr.write(clear());
    },
    stop() {
      process.stderr.write(clear());
    },
  };
}

/** Each line says who speaks: the command writes to the same terminal. Tables stand by themselves. */
function prefixed(text: string): string {
  return text.includes("\n") ? text : `lazygraph: ${text}`;
}
