/**
 * `lazygraph run -- COMMAND`: a controller, and the vLLM command under it.
 *
 * The command comes first: once it runs, nothing that happens to the controller may end it, and
 * its exit code is ours.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../base/clock.ts";
import { codeOf, type ErrorCode, messageOf } from "../base/errors.ts";
import { hideSecretOptions } from "../base/secrets.ts";
import { type Controller, createController } from "../controller/controller.ts";
import { toldSnapshot } from "../controller/told-session.ts";
import type { EngineSnapshot } from "../engine/snapshot.ts";
import { launcherCommand } from "../launcher/command.ts";
import { askLauncher } from "../launcher/status.ts";
import { monotonicSeconds, spanWriter } from "../startup/spans.ts";
import { startCaches } from "./cache-use.ts";
import { type Child, type ChildEnd, startChild, startExitCode } from "./child.ts";
import { closeWithin } from "./close-within.ts";
import { noteMissingController } from "./controller-there.ts";
import { curveKeys, SECRET_VARIABLES } from "./curve-keys.ts";
import { EXIT, errorLine, note, quote, reportError } from "./errors.ts";
import { isHangupIgnored } from "./hangup.ts";
import { openHttpServer } from "./http-side.ts";
import { listen } from "./listen.ts";
import { isDisabled, noEngineSentence } from "./no-engine.ts";
import { notePlanFolder } from "./plan-folder.ts";
import { LOOPBACK, openPrivateEndpoint } from "./private-endpoint.ts";
import { followEngines } from "./progress.ts";
import { openReport, type Report } from "./report.ts";
import { requirePlugin } from "./require-plugin.ts";
import { HELP, parseRun, type RunOptions } from "./run-options.ts";
import { planFolderOf, type StartWatch, watchStart } from "./start-watch.ts";
import { withoutSecrets } from "./without-secrets.ts";

const JOIN_WARNING_SECONDS = 120;
const LAST_LOOKS = 20;
const LAST_LOOK_MS = 10;

export async function runRun(argv: readonly string[]): Promise<number> {
  const options = parseRun(argv);
  if (options === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const report = options.json === undefined ? undefined : await openReport(options.json);
  if (isDisabled(process.env)) return runStock(options, report);
  if (options.controller !== undefined) return runElsewhere(options, options.controller);
  const { mode, settleWithinSeconds, enginesMax } = options;
  if (options.preset !== undefined && !options.quiet) note(options.preset);
  if (options.vainOption !== undefined && !options.quiet) note(options.vainOption);
  const own = options.endpoint ?? LOOPBACK;
  const curve = await curveKeys(options.keys, process.env, own, (sentence) =>
    note(sentence, "ERR_LAZYGRAPH_KEYS"),
  );
  await requirePlugin(options.command, process.env, await launcherPython(options));
  await using privately = options.endpoint === undefined ? await openPrivateEndpoint() : undefined;
  const endpoint = privately?.endpoint ?? own;
  const controller = createController({
    mode,
    endpoint,
    ...options.planning,
    memory: options.memory,
    ...(settleWithinSeconds === undefined ? {} : { settleWithinSeconds }),
    ...(enginesMax === undefined ? {} : { enginesMax }),
    ...(curve === undefined ? {} : { curve }),
  });
  // Before the endpoint is bound: a token or certificate that can't be used ends the start.
  await using watch = await watched(options);
  const server =
    options.http === undefined
      ? undefined
      : await openHttpServer(controller, options.http, process.env, watch && { start: watch });
  await controller.start();
  const planTold = await notePlanFolder(options.planning, process.env);
  try {
    if (server !== undefined && options.http !== undefined) {
      const url = await listen(server, options.http.address);
      if (!options.quiet) note(`HTTP at ${url}.`);
    }
    return await runCommand(options, controller, report, watch, planTold);
  } finally {
    server?.close();
    server?.closeAllConnections();
    await closeWithin(controller, note, planTold);
  }
}

/** A launcher tells whether its own Python has the plugin; that there is none is told later. */
async function launcherPython({ launcher }: RunOptions): Promise<string | undefined> {
  if (launcher === undefined) return undefined;
  return askLauncher(launcher).then(
    ({ python, plugin }) => (plugin === undefined ? undefined : python),
    () => undefined,
  );
}

/** Only where somebody can ask for it: without the HTTP side nothing is timed. */
async function watched(options: RunOptions): Promise<StartWatch | undefined> {
  if (options.http === undefined) return undefined;
  const { command, mode, launcher, caches, planning } = options;
  return watchStart({
    command,
    how: [mode, launcher === undefined ? "" : "launcher", caches === undefined ? "" : "caches"],
    environment: process.env,
    planFolder: planFolderOf(planning, process.env),
  });
}

function ownController(given: string): string {
  return (
    `LAZYGRAPH_ENDPOINT=${given} is not used: \`run\` has a controller of its own. For an engine of ` +
    "that controller name it with --controller."
  );
}

async function runCommand(
  options: RunOptions,
  controller: Controller,
  report: Report | undefined,
  watch: StartWatch | undefined,
  planTold: boolean,
): Promise<number> {
  const environment = { ...engineEnvironment(options, controller.endpoint), ...watch?.variables };
  const given = process.env["LAZYGRAPH_ENDPOINT"];
  if (!options.quiet && given) note(ownController(given));
  const child = await start(options, environment);
  if (typeof child === "number") return child;
  watch?.begin();
  const release = survive();
  const write = (): Promise<void> => writeReport(report, options.command, controller.engines());
  const following = followEngines(controller, {
    quiet: options.quiet,
    ...(planTold ? { told: "ERR_LAZYGRAPH_PLAN" } : {}),
    onSettled: () => void write(),
  });
  const cancelWarning = systemClock.after(JOIN_WARNING_SECONDS, () => {
    if (following.joined()) return;
    const sentence = noEngineSentence(controller.endpoint, JOIN_WARNING_SECONDS);
    note(sentence, "ERR_LAZYGRAPH_NO_ENGINE");
  });
  const end = await child.ended;
  cancelWarning();
  if (end.signal === undefined) await lastWords(controller);
  following.stop();
  await write();
  release();
  explainEnd(end, following.joined(), options);
  return end.exitCode;
}

/** Of a command that ended by itself: what its engine said last may be read after its end. */
async function lastWords(controller: Controller): Promise<void> {
  const isThere = (): boolean => controller.engines().some(({ connected }) => connected);
  for (let look = 0; look < LAST_LOOKS && isThere(); look++) await sleep(LAST_LOOK_MS);
}

function engineEnvironment({ mode, engine }: RunOptions, endpoint: string): NodeJS.ProcessEnv {
  return {
    ...process.env,
    LAZYGRAPH_ENDPOINT: endpoint,
    LAZYGRAPH_MODE: mode,
    ...(engine === undefined ? {} : { LAZYGRAPH_ENGINE: engine }),
  };
}

/** An engine of another controller, which tells of it once it has joined. */
async function runElsewhere(options: RunOptions, endpoints: string): Promise<number> {
  await requirePlugin(options.command, process.env, await launcherPython(options));
  if (options.isModeGiven && !options.quiet) {
    note(
      `Mode ${options.mode} holds until the engine joins the controller at ${endpoints}, whose mode ` +
        "holds from then on: set it there.",
    );
  }
  const child = await start(options, engineEnvironment(options, endpoints));
  if (typeof child === "number") return child;
  const telling = noteMissingController(endpoints, process.env, child.ended);
  const end = await child.ended;
  await telling;
  explainSignal(end, options);
  return end.exitCode;
}

/** The switch for emergencies: nothing of ours stands between the user and the command. */
async function runStock(options: RunOptions, report: Report | undefined): Promise<number> {
  if (!options.quiet) {
    note("LAZYGRAPH_DISABLE is set: the command runs as stock, without a controller.");
  }
  const as = { ...options, caches: undefined, command: options.typed };
  const child = await start(as, { ...process.env });
  if (typeof child === "number") return child;
  const end = await child.ended;
  await writeReport(report, options.command, []);
  return end.exitCode;
}

/** The command, or the exit code when it could not be started. */
async function start(options: RunOptions, environment: NodeJS.ProcessEnv): Promise<Child | number> {
  for (const name of SECRET_VARIABLES) delete environment[name];
  const caches = await startCaches(options.caches, options.command, environment, options.quiet);
  Object.assign(environment, caches.variables);
  try {
    const command = await throughLauncher(options, environment);
    const child = await startChild(command, { environment, ignoreHangup: isHangupIgnored() });
    spanWriter(environment).ended("wrapper", monotonicSeconds() - performance.now() / 1000);
    return { ...child, ended: child.ended.finally(caches.release) };
  } catch (error) {
    await caches.release();
    reportError(error);
    return startExitCode(error);
  }
}

/** The command, or what has a launcher fork it. */
async function throughLauncher(
  { launcher, command }: RunOptions,
  environment: NodeJS.ProcessEnv,
): Promise<readonly string[]> {
  if (launcher === undefined) return command;
  try {
    return await launcherCommand(launcher, command, environment);
  } catch (error) {
    note(`Not forked but spawned: ${messageOf(error)}`, codeOf(error) as ErrorCode | undefined);
    return command;
  }
}

async function writeReport(
  report: Report | undefined,
  command: readonly string[],
  engines: readonly EngineSnapshot[],
): Promise<void> {
  try {
    await report?.write({
      command: hideSecretOptions(command),
      engines: engines.map(toldSnapshot),
    });
  } catch (error) {
    process.stderr.write(`${errorLine(error)}\n`);
  }
}

/** An engine that never joined: say so, and whether the command failed before. */
function explainEnd(end: ChildEnd, joined: boolean, options: RunOptions): void {
  if (joined) explainSignal(end, options);
  if (joined || end.asked) return;
  if (end.exitCode === 0) {
    if (!options.quiet) note("The command has ended, and no engine had joined.");
    return;
  }
  const how = end.signal === undefined ? `with exit code ${end.exitCode}` : `by ${end.signal}`;
  const command = commandOf(options);
  // A launcher's client, which stands for a Python's script, ends so if it could start nothing.
  const codes: Partial<Record<number, ErrorCode>> = {
    [EXIT.notFound]: "ERR_LAZYGRAPH_COMMAND_NOT_FOUND",
    [EXIT.notExecutable]: "ERR_LAZYGRAPH_COMMAND_NOT_EXECUTABLE",
  };
  const unstarted = options.launcher === undefined ? undefined : codes[end.exitCode];
  if (unstarted !== undefined) {
    note(`${command} was not started; what was printed above says why.`, unstarted);
    return;
  }
  note(
    `${command} ended ${how} before any engine joined; what was printed above says why.`,
    "ERR_LAZYGRAPH_COMMAND_DIED",
  );
}

/** A killed command has no last words: without this line nothing tells its end from one by itself. */
function explainSignal({ signal, asked }: ChildEnd, options: RunOptions): void {
  if (signal === undefined || asked) return;
  const advice =
    signal === "SIGKILL"
      ? "if nobody else sent it, memory ran out, of the host (`dmesg`) or of its container's limit"
      : "what was printed above may say why";
  note(
    `${commandOf(options)} was ended by ${signal}, which didn't come through \`run\`; ${advice}.`,
    "ERR_LAZYGRAPH_COMMAND_KILLED",
  );
}

function commandOf({ command }: RunOptions): string {
  return `The command ${quote(withoutSecrets(command))}`;
}

/** From here on a defect of ours costs the controller, not the engine. Returns the way back. */
function survive(): () => void {
  const handler = (error: unknown): void => {
    const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
    note("A defect in the controller; the command goes on. Please report it:");
    process.stderr.write(`${detail}\n`);
  };
  process.on("uncaughtException", handler);
  process.on("unhandledRejection", handler);
  return () => {
    process.off("uncaughtException", handler);
    process.off("unhandledRejection", handler);
  };
}
