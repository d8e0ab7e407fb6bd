/**
 * Progress of captures on stderr: a bar on a terminal, and the table when an engine is settled; a
 * few plain lines elsewhere. Stdout belongs to the command.
 */

import cliProgress from "cli-progress";
import { systemClock } from "../base/clock.ts";
import { counted } from "../base/counted.ts";
import { ERROR_CODES, type ErrorCode } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { Seldom } from "../base/seldom.ts";
import { type Controller, lookUp } from "../controller/controller.ts";
import { onEvent } from "../engine/events.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { type Log, type LogLevel, withCode } from "./log.ts";
import { secondsText, settledTable, settledText } from "./table.ts";

/** More lines than this at once about misses and problems help nobody; the snapshot has them all. */
const COMPLAINTS_MAX = 20;
/** Lines of a kind in a minute about one engine, however often it comes and goes. */
const NEWS_MAX = 5;

export interface FollowOptions {
  /** Prints nothing but problems. */
  readonly quiet?: boolean;
  /** Where lines go that are no terminal's. @default stderr, as `lazygraph: LINE` */
  readonly log?: Log;
  /** The code of what was told before: what else comes of it is no news. */
  readonly told?: ErrorCode;
  /** Called each time an engine is settled. */
  readonly onSettled?: () => void;
}

export interface Following {
  /** Whether any engine has joined so far. */
  joined(): boolean;
  /** Ends the progress; what became of an engine that never settled is told now. */
  stop(): void;
}

/** Of whom a line is, and the code of what went wrong. */
interface About {
  readonly engine?: string;
  readonly code?: string;
}

/** Where progress goes. */
interface Sink {
  line(text: string, about?: About, level?: LogLevel): void;
  /** What capturing came to, and why nothing more comes; no reason where it never settled. */
  summary(engine: EngineSnapshot, reason: string | undefined): void;
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
  /** What was last told of each engine: captures that end twice are told once. */
  const told = new Map<string, string>();

  const seldom = new Seldom();
  const untold = (kind: string, engine = "") =>
    seldom.next(`${kind} ${engine}`, systemClock.now(), NEWS_MAX);

  function tell(kind: string, text: string, about: About): void {
    const count = untold(kind, about.engine);
    if (count === undefined) return;
    sink.line(`${text}${moreText(count)}`, about);
  }

  function summarise(engine: EngineSnapshot | undefined, reason?: string): void {
    if (engine === undefined) return;
    const { engine: name, session, graphsCaptured, graphsRefused, graphsFailed } = engine;
    // Another mode with the same graphs and for the same reason is no news.
    const about = [session, graphsCaptured, graphsRefused, graphsFailed, reason].join(" ");
    if (told.get(name) === about) return;
    told.set(name, about);
    if (engine.unsupported !== undefined) {
      const why = printable(engine.unsupported);
      tell("stock", `${printable(name)} ran as stock: ${why}`, { engine: name });
    }
    if (engine.graphsPlanned === 0 || untold("summary", name) === undefined) return;
    sink.summary(engine, reason);
  }

  /** In Kubernetes each pod has a name of its own: those that the controller forgot go here, too. */
  function forget(known: readonly string[]): void {
    if (told.size <= 2 * known.length) return;
    const names = new Set(known);
    for (const name of told.keys()) if (!names.has(name)) told.delete(name);
  }

  const complain = bounded(sink);
  const subscriptions = [
    onEvent("lazygraph:engine:join", ({ engine, model, mode, reconnected }) => {
      joined = true;
      if (!reconnected) told.delete(engine);
      // The reason has yet to come; until the end only the engine's own log has it.
      const isStock = lookUp(controller, engine).found?.phase === "stock";
      const how = isStock ? "runs as stock, and its log says why" : `mode ${mode}`;
      tell(
        "join",
        reconnected
          ? `${printable(engine)} is back`
          : `${printable(engine)} joined: ${printable(model)}, ${how}`,
        { engine },
      );
    }),
    onEvent("lazygraph:engine:ready", ({ engine, ...event }) => {
      const graphs = `${event.graphsCaptured} of ${event.graphsPlanned} graphs`;
      const text = `${printable(engine)} is ready: ${graphs} in ${secondsText(event.captureSeconds)}`;
      tell("ready", text, { engine });
    }),
    onEvent("lazygraph:engine:memory", ({ engine, line }) => {
      tell("memory", printable(line), { engine });
    }),
    // The first refusal says it all; a status shows the rest.
    onEvent("lazygraph:memory:refused", ({ engine, line, repeated }) => {
      if (!repeated) tell("refused", printable(line), { engine });
    }),
    onEvent("lazygraph:memory:room", ({ engine, line }) => complain(printable(line), { engine })),
    onEvent("lazygraph:memory:dropped", ({ engine, line }) => {
      complain(printable(line), { engine });
    }),
    onEvent("lazygraph:capture:end", ({ engine, graph, ms, graphsCaptured, graphsPlanned }) => {
      const last = `${printable(graph)} ${ms.toFixed(0)} ms`;
      sink.captured(engine, graphsCaptured, graphsPlanned, last);
    }),
    onEvent("lazygraph:engine:settled", ({ engine, reason }) => {
      sink.settled(engine);
      const { found, names } = lookUp(controller, engine);
      summarise(found, reason);
      forget(names);
      options.onSettled?.();
    }),
    onEvent("lazygraph:engine:lost", ({ engine, reason, code, goodbye }) => {
      sink.settled(engine);
      tell(
        "lost",
        goodbye === undefined
          ? `${printable(engine)} is gone: ${printable(reason)}`
          : `${printable(engine)} left: ${printable(goodbye)}`,
        goodbye === undefined ? { engine, code } : { engine },
      );
    }),
    ...(quiet ? [] : complaints(complain)),
    problems(quiet ? bounded(lines(log)) : complain, options.told),
  ];

  return {
    joined: () => joined,
    stop() {
      for (const unsubscribe of subscriptions) unsubscribe();
      sink.stop();
      for (const each of controller.engines()) if (!told.has(each.engine)) summarise(each);
    },
  };
}

/**
 * Prints some lines of each code, then one a minute: what goes on for long must not hide what comes,
 * and a service that runs for months must not fall silent.
 */
function bounded(sink: Sink): (text: string, about: About) => void {
  const counts = new Map<ErrorCode | undefined, number>();
  const seldom = new Seldom();
  return (text, about) => {
    // Engines have codes of their own, any number of them.
    const code = ERROR_CODES.find((known) => known === about.code);
    const count = (counts.get(code) ?? 0) + 1;
    counts.set(code, count);
    const isMany = count > COMPLAINTS_MAX;
    const untold = isMany ? seldom.next(code ?? "", systemClock.now()) : 0;
    if (untold !== undefined) sink.line(`${text}${moreText(untold)}`, about, "warn");
  };
}

function moreText(untold: number): string {
  return untold > 0 ? ` (${counted(untold, "time")} more since the last such line)` : "";
}

/** Graphs that were not captured: no error, each for a reason. */
function complaints(complain: (text: string, about: About) => void): (() => void)[] {
  return [
    onEvent("lazygraph:capture:refused", ({ engine, graph, reason }) => {
      complain(`${printable(engine)} refused ${printable(graph)}: ${printable(reason)}`, {
        engine,
      });
    }),
    onEvent("lazygraph:capture:failed", ({ engine, graph, reason }) => {
      const what = `failed to capture ${printable(graph)}: ${printable(reason)}`;
      complain(`${printable(engine)} ${what}`, { engine });
    }),
  ];
}

/** What went wrong. */
function problems(
  complain: (text: string, about: About) => void,
  told: ErrorCode | undefined,
): () => void {
  return onEvent("lazygraph:problem", ({ engine, code, message }) => {
    if (code === told) return;
    const who = engine === "" ? "" : `${printable(engine)}: `;
    complain(`${who}${printable(message)}`, engine === "" ? { code } : { engine, code });
  });
}

function silentSink(): Sink {
  const nothing = (): void => undefined;
  return { line: nothing, summary: nothing, captured: nothing, settled: nothing, stop: nothing };
}

/** For logs: a line at each quarter of the plan. */
function lines(log?: Log): Sink {
  const quarters = new Map<string, number>();
  const line: Sink["line"] = (text, about = {}, level = "info") => {
    if (log === undefined) process.stderr.write(`lazygraph: ${withCode(text, about.code)}\n`);
    else log.line(level, text, {}, about);
  };
  return {
    line,
    summary: (engine, reason) => {
      line(settledText(engine, reason), { engine: engine.engine });
    },
    captured(engine, captured, planned, last) {
      const quarter = planned === 0 ? 0 : Math.floor((4 * captured) / planned);
      if (quarter <= (quarters.get(engine) ?? 0)) return;
      quarters.set(engine, quarter);
      const text = `${printable(engine)}: ${captured} of ${planned} graphs, last ${last}`;
      line(text, { engine });
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
 * For a terminal: one bar over all engines, drawn when it changes.
 *
 * cli-progress formats it and we draw it: its own drawing saves the cursor's position when a bar
 * starts and goes back there when it ends, over what vLLM has logged there meanwhile.
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
    process.stderr.write(`${CLEAR_LINE}${`lazygraph: ${text}`.slice(0, columns)}`);
    drawn = true;
  };
  // Each line says who speaks: the command writes to the same terminal. Tables stand alone.
  const line: Sink["line"] = (text, about = {}) => {
    process.stderr.write(`${clear()}lazygraph: ${withCode(text, about.code)}\n`);
  };
  return {
    line,
    summary(engine, reason) {
      if (reason !== undefined) {
        line(`${printable(engine.engine)} is settled: ${printable(reason)}`);
      }
      process.stderr.write(`${clear()}${settledTable(engine)}\n`);
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
