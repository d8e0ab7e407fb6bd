/**
 * One course: a controller and some engines under faults that a seed draws, then without any until
 * both sides must agree again. The same seed is the same course.
 */

import { createRandom, type Random } from "../../src/base/random.ts";
import type { ControllerOptions } from "../../src/controller/options.ts";
import { onEvent } from "../../src/engine/events.ts";
import type { Profile } from "../../src/profile/profile.ts";
import { MODES, type Orders } from "../../src/wire/protocol.ts";
import { Timeline } from "./clock.ts";
import { SimDisk } from "./disk.ts";
import { KILL_POINTS, type KillPoint, nameOf } from "./kill-points.ts";
import { Ledger, Violation } from "./ledger.ts";
import { type Connection, Network, NO_FAULTS, type Plant } from "./network.ts";
import { ControllerProcess, EngineProcess, profileOf } from "./processes.ts";

export interface CourseOptions {
  /** Simulated seconds of faults. @default 15 */
  readonly seconds?: number;
  /** A defect to be found: what the seeds are worth. @default none */
  readonly plant?: Plant;
  /** Called with a line for everything that the course does. */
  readonly log?: (line: string) => void;
}

export interface CourseResult {
  readonly seed: number;
  /** Undefined: everything held. */
  readonly violation: string | undefined;
  readonly simulatedSeconds: number;
  readonly events: number;
  readonly kills: ReadonlyMap<string, number>;
  /** What happened, in one number: equal for equal courses. */
  readonly digest: number;
}

const HEARTBEAT_MS = 2000;
/** Of agreement, after the last fault. */
const QUIET_SECONDS_MAX = 400;
/** Of courses, by engines: most of what can go wrong takes one. */
const ENGINES = [1, 1, 1, 2, 2, 3];
const HOUR_MS = 3_600_000;
const BEGAN_UNIX_MS = Date.UTC(2026, 0, 1);

const SIZES = [1, 2, 4, 8, 16];
/** More than fits, in pools that can be given up one by one. */
const TIGHT = profileOf(250, [1, 64, 128, 256], 100);
const PROFILES: readonly Profile[] = [profileOf(90_000, SIZES), profileOf(500, SIZES), TIGHT];
/** All that a stranger on the GPU may take. */
const EVERYTHING_MIB = 100_000;
const GENTLE_ACTS = 3;
const DRAW_SECONDS = 20;
/** How long one that has no right to its place goes on. */
const DOUBLE_SECONDS = 10;
const isTight = ({ message }: KillPoint): boolean => message === "drop" || message === "dropped";

export async function runCourse(seed: number, options: CourseOptions = {}): Promise<CourseResult> {
  const course = new Course(seed, options);
  const stop = onEvent("lazygraph:problem", ({ code, message }) => course.problem(code, message));
  const wallClock = Date.now;
  Date.now = () => course.unixMs;
  let violation: string | undefined;
  try {
    await course.run();
  } catch (error) {
    violation = error instanceof Violation ? error.message : String((error as Error).stack);
  } finally {
    Date.now = wallClock;
    stop();
  }
  const { timeline, events, kills, digest } = course;
  return { seed, violation, simulatedSeconds: timeline.nowSeconds, events, kills, digest };
}

class Course {
  readonly timeline = new Timeline();
  readonly kills = new Map<string, number>();
  events = 0;
  digest = 0;
  /** Each seed begins with another one, so that a row of seeds goes through all of them. */
  readonly #first: KillPoint;
  /** What brings about a drop is an engine on a full GPU, and time. */
  readonly #tight: boolean;
  readonly #options: CourseOptions;
  readonly #random: Random;
  readonly #network: Network;
  readonly #disk = new SimDisk();
  readonly #ledger = new Ledger(() => this.timeline.nowSeconds);
  readonly #engines = new Map<string, EngineProcess>();
  readonly #profiles = new Map<string, Profile>();
  readonly #rules: ControllerOptions;
  #controller: ControllerProcess | undefined;
  readonly #doubles: EngineProcess[] = [];
  #armed: (KillPoint & { left: number })[] = [];
  #sessions = 0;
  #jumpedMs = 0;
  #faulty = true;
  #fault: Violation | undefined;

  constructor(seed: number, options: CourseOptions) {
    this.#first = KILL_POINTS[seed % KILL_POINTS.length] as KillPoint;
    this.#tight = isTight(this.#first);
    this.#options = options;
    this.#random = createRandom(seed);
    this.#network = new Network(this.timeline, this.#random);
    this.#network.plant = options.plant;
    this.#network.passed = (type, moment, connection) => this.#passed(type, moment, connection);
    this.#rules = {
      heartbeatMs: HEARTBEAT_MS,
      captureTimeoutMs: 20_000,
      mode: this.#tight ? "idle" : this.#pick(MODES),
      policy: this.#chance(0.5) ? "simple" : "costed",
      planFolder: "plans",
    };
  }

  get unixMs(): number {
    return BEGAN_UNIX_MS + this.#jumpedMs + Math.round(this.timeline.nowSeconds * 1000);
  }

  problem(code: string, message: string): void {
    if (code === "ERR_LAZYGRAPH_INTERNAL" || code === "ERR_LAZYGRAPH_POLICY") {
      this.#fault ??= new Violation(`${code}: ${message}`);
    }
  }

  async run(): Promise<void> {
    const { seconds = 15 } = this.#options;
    this.#drawFaults();
    this.#startController();
    const engines = this.#tight ? 1 : this.#pick(ENGINES);
    for (let place = 0; place < engines; place++) {
      const name = `engine-${place}`;
      this.#profiles.set(name, this.#pick(PROFILES));
      this.#startEngine(name);
    }
    this.#actLater();
    await this.#until(seconds);
    this.#endFaults();
    await this.#agree();
    await this.#end();
  }

  // ---------------------------------------------------------------- time

  async #until(atSeconds: number): Promise<void> {
    while (this.timeline.step(atSeconds)) await this.#happened();
  }

  /** All that follows from what has just happened, then the look at what must hold. */
  async #happened(): Promise<void> {
    this.events++;
    // After all promises that are due: their queue is emptied before the next tick.
    await new Promise<void>((resolve) => process.nextTick(resolve));
    for (const engine of [...this.#engines.values(), ...this.#doubles]) {
      if (!engine.alive) continue;
      engine.look();
      this.#ledger.met(this.#controller, engine);
    }
    this.#ledger.bounded(this.#controller, this.#engines.values());
    if (this.#fault !== undefined) throw this.#fault;
  }

  // ---------------------------------------------------------------- faults

  /** Anew now and then, in a long course. */
  #drawFaults(): void {
    this.timeline.after(DRAW_SECONDS, () => {
      if (this.#faulty) this.#drawFaults();
    });
    const rate = (max: number): number => (this.#chance(0.5) ? this.#random() ** 2 * max : 0);
    const faults = {
      lost: rate(0.2),
      doubled: rate(0.2),
      late: rate(0.2),
      reordered: rate(0.5),
    };
    const first = this.#first;
    if (!this.#tight) this.#network.faults = faults;
    const points = this.#tight
      ? [first]
      : [first, ...Array.from({ length: 2 }, () => this.#pick(KILL_POINTS))];
    this.#armed = points.map((point, place) => ({
      ...point,
      left: place === 0 ? 1 : 1 + Math.floor(this.#random() * 3),
    }));
    this.#provoke(first);
  }

  /** Messages that a course may do without are brought about. */
  #provoke({ message }: KillPoint): void {
    const at = (seconds: number, act: (name: string) => void): void => {
      this.timeline.after(seconds, () => {
        if (this.#faulty) act(this.#anyName());
      });
    };
    for (const seconds of [4, 7, 10, 12, 13]) {
      if (message === "later") at(seconds, (name) => this.#double(name));
      if (message === "refuse") at(seconds, () => this.#foreigner());
      if (message === "problem") at(seconds, (name) => this.#complain(name));
      if (message === "goodbye") at(seconds, (name) => this.#restartEngine(name));
      if (["sleep", "slept", "wake"].includes(message)) {
        at(seconds, (name) => this.#sleep(name));
        at(seconds + 1, (name) => this.#wake(name));
      }
      if (message === "freeze") at(seconds, (name) => this.#freeze(name));
      if (message === "mode") at(seconds, (name) => this.#setMode(name));
      if (message === "resync") at(seconds, () => this.#restartController());
      if (this.#tight)
        at(seconds, (name) => this.#squeeze(name, seconds % 2 === 0 ? EVERYTHING_MIB : 0));
    }
  }

  #passed(type: string, moment: KillPoint["moment"], connection: Connection): void {
    this.#note(`${type} ${moment} ${connection.peer}`);
    if (!this.#faulty) return;
    const point = this.#armed.find((one) => one.message === type && one.moment === moment);
    if (point === undefined) return;
    point.left--;
    if (point.left > 0) return;
    this.#armed = this.#armed.filter((one) => one !== point);
    const name = nameOf(point);
    this.kills.set(name, (this.kills.get(name) ?? 0) + 1);
    this.#note(name);
    const told = this.#chance(0.7);
    if (point.victim === "controller") this.#killController(told);
    else this.#killAt(connection, told);
  }

  #actLater(): void {
    if (!this.#faulty) return;
    this.timeline.after(this.#random() * 2.5, () => {
      if (!this.#faulty) return;
      this.#act();
      this.#actLater();
    });
  }

  #act(): void {
    const name = this.#anyName();
    // What brings about a drop takes its time.
    const acts = this.#tight ? this.#acts.slice(0, GENTLE_ACTS) : this.#acts;
    const [what, act] = this.#pick(acts);
    this.#note(`${what} ${name}`);
    act(name);
  }

  /** The gentle ones first. */
  readonly #acts: readonly (readonly [string, (name: string) => void])[] = [
    ["requests", (name) => this.#requests(name)],
    ["requests", (name) => this.#requests(name)],
    ["requests", (name) => this.#requests(name)],
    ["cut", () => this.#cut()],
    ["cut", () => this.#cut()],
    ["freeze", (name) => this.#freeze(name)],
    ["mode", (name) => this.#setMode(name)],
    ["mode", (name) => this.#setMode(name)],
    ["stop", (name) => this.#stop(this.#engines.get(name))],
    ["stop", () => this.#stop(this.#controller)],
    ["restart", () => this.#restartController()],
    ["restart", (name) => this.#restartEngine(name)],
    ["kill", (name) => this.#killEngine(name, this.#chance(0.5))],
    ["kill", () => this.#killController(this.#chance(0.5))],
    ["sleep", (name) => this.#sleep(name)],
    ["wake", (name) => this.#wake(name)],
    ["squeeze", (name) => this.#squeeze(name, 0)],
    ["squeeze", (name) => this.#squeeze(name, Math.floor(this.#random() * 500))],
    ["disk", () => this.#fillDisk()],
    ["clock", () => this.#jump()],
    ["double", (name) => this.#chance(0.3) && this.#double(name)],
  ];

  #cut(): void {
    const connections = this.#network.connections();
    if (connections.length > 0) this.#network.cut(this.#pick(connections), this.#chance(0.5));
  }

  #stop(process: ControllerProcess | EngineProcess | undefined): void {
    if (process === undefined || !process.alive || process.clock.stopped) return;
    process.clock.stop();
    this.timeline.after(this.#random() * 12, () => process.goOn());
  }

  #restartController(): void {
    const old = this.#controller;
    if (old === undefined || !old.alive || old.clock.stopped) return;
    // As a gateway does that freezes its engines for a roll-out, and ends.
    if (this.#chance(0.5)) this.#freeze(this.#anyName());
    this.#controllerGone((engine) => old.lastWords(engine));
    void old.end();
    this.#startControllerLater();
  }

  #killController(told: boolean): void {
    const old = this.#controller;
    if (old === undefined || !old.alive) return;
    old.kill(told);
    this.#controllerGone();
    this.#startControllerLater();
  }

  #controllerGone(lastWords?: (engine: EngineProcess) => Orders | undefined): void {
    this.#controller = undefined;
    // The next one could not know which of two is the younger.
    for (const double of this.#doubles.splice(0)) if (double.alive) double.kill(true);
    this.#ledger.controllerGone(this.#engines.values(), lastWords);
  }

  #startControllerLater(): void {
    this.timeline.after(0.1 + this.#random() * 4, () => this.#startController());
  }

  #startController(): void {
    if (this.#controller !== undefined) return;
    this.#note("controller starts");
    this.#controller = new ControllerProcess(this.#network, this.#disk, this.#rules);
  }

  #restartEngine(name: string): void {
    const old = this.#engines.get(name);
    if (old === undefined || !old.alive || old.clock.stopped) return;
    this.#engines.delete(name);
    this.#ledger.engineGone(old);
    void old.end();
    this.#startEngineLater(name);
  }

  #killEngine(name: string, told: boolean): void {
    const old = this.#engines.get(name);
    if (old === undefined || !old.alive) return;
    old.kill(told);
    this.#engines.delete(name);
    this.#ledger.engineGone(old);
    this.#startEngineLater(name);
  }

  /** The process at this end, which need not be the one that has the name now. */
  #killAt({ peer, wire }: Connection, told: boolean): void {
    if (this.#engines.get(wire.name)?.session === peer) this.#killEngine(wire.name, told);
    else this.#doubles.find(({ session }) => session === peer)?.kill(told);
  }

  /** Its own goodbye is on its way. */
  #diedOfMemory(process: EngineProcess): void {
    if (this.#engines.get(process.name) !== process) return;
    this.#engines.delete(process.name);
    this.#ledger.engineGone(process);
    this.#startEngineLater(process.name);
  }

  #startEngineLater(name: string): void {
    this.timeline.after(0.1 + this.#random() * 4, () => this.#startEngine(name));
  }

  #startEngine(name: string): void {
    if (this.#engines.has(name)) return;
    this.#note(`${name} starts`);
    this.#network.forget(name);
    this.#sessions++;
    const engine = new EngineProcess(this.#network, {
      name,
      profile: this.#tight ? TIGHT : (this.#profiles.get(name) as Profile),
      mode: "idle",
      session: `${name}/${this.#sessions}`,
      onEvent: (process, event) => {
        try {
          if (event.type === "outOfMemory") this.#diedOfMemory(process);
          this.#ledger.event(process, event);
        } catch (error) {
          this.#fault ??= error as Violation;
        }
      },
    });
    this.#engines.set(name, engine);
  }

  /** An engine whose plugin speaks another version comes by. */
  #foreigner(): void {
    this.#sessions++;
    const foreigner = new EngineProcess(this.#network, {
      name: "foreigner",
      profile: PROFILES[0] as Profile,
      mode: "idle",
      session: `foreigner/${this.#sessions}`,
      foreign: true,
      onEvent: () => undefined,
    });
    this.#doubles.push(foreigner);
    this.timeline.after(DOUBLE_SECONDS, () => foreigner.alive && foreigner.kill(true));
  }

  /** Another process takes the name; the older one is put off, and leaves some time later. */
  #double(name: string): void {
    const old = this.#engines.get(name);
    if (old === undefined || !old.alive) return;
    this.#engines.delete(name);
    this.#ledger.engineGone(old);
    if (old.isWith(this.#controller)) {
      this.#doubles.push(old);
      this.timeline.after(DOUBLE_SECONDS, () => old.alive && old.kill(true));
    } else old.kill(true);
    this.#startEngine(name);
  }

  #complain(name: string): void {
    const engine = this.#engines.get(name);
    engine?.tell({ type: "problem", code: "ERR_LAZYGRAPH_BUSY", message: "A planted complaint." });
  }

  #requests(name: string): void {
    const engine = this.#engines.get(name);
    if (engine === undefined || engine.clock.stopped) return;
    const count = 1 + Math.floor(this.#random() * 3);
    for (let request = 0; request < count; request++) {
      engine.request(1 + Math.floor(this.#random() * 20), 1 + Math.floor(this.#random() * 4));
    }
  }

  /** A stranger on its GPU takes so much. */
  #squeeze(name: string, mib: number): void {
    const engine = this.#engines.get(name);
    if (engine === undefined || engine.clock.stopped) return;
    engine.engine.setStrangerBytes(mib * 2 ** 20);
  }

  #fillDisk(): void {
    this.#disk.full = true;
    this.timeline.after(this.#random() * 30, () => {
      this.#disk.full = false;
    });
  }

  /** NTP sets the clock, by minutes or by hours, ahead. */
  #jump(): void {
    this.#jumpedMs += Math.round(this.#random() * (this.#chance(0.5) ? HOUR_MS : 60_000));
  }

  // ---------------------------------------------------------------- orders

  #order(act: (controller: ControllerProcess) => void, taken: () => void): void {
    const controller = this.#controller;
    if (controller === undefined || controller.clock.stopped) return;
    try {
      act(controller);
    } catch {
      // The engine is lost or unknown: then it is no order, and the caller knows.
      return;
    }
    if (controller.alive) taken();
  }

  #setMode(name: string): void {
    const mode = this.#pick(MODES);
    this.#note(`order ${name} ${mode}`);
    const taken = (): void => this.#ledger.ordered(name, { mode });
    this.#order(({ controller }) => controller.setMode(name, mode), taken);
  }

  #freeze(name: string): void {
    this.#note(`order ${name} freeze`);
    const taken = (): void => this.#ledger.ordered(name, { frozen: true });
    this.#order(({ controller }) => controller.freeze(name), taken);
  }

  #sleep(name: string): void {
    const dropGraphs = this.#chance(0.5);
    const ignore = (): void => {};
    this.#order(
      ({ controller }) => void controller.sleep(name, { dropGraphs }).catch(ignore),
      ignore,
    );
  }

  #wake(name: string): void {
    const ignore = (): void => {};
    this.#order(({ controller }) => void controller.wake(name).catch(ignore), ignore);
  }

  // ---------------------------------------------------------------- the end

  #endFaults(): void {
    this.#note("faults end");
    this.#faulty = false;
    this.#armed = [];
    this.#network.faults = NO_FAULTS;
    this.#disk.full = false;
    this.#controller?.goOn();
    for (const engine of this.#engines.values()) {
      engine.goOn();
      engine.engine.setStrangerBytes(0);
    }
  }

  /** Both sides must come to agree, and then stay so. */
  async #agree(): Promise<void> {
    const end = this.timeline.nowSeconds + QUIET_SECONDS_MAX;
    for (let agreed = 0; agreed < 2; ) {
      const began = this.timeline.nowSeconds;
      await this.#until(began + 2 * (HEARTBEAT_MS / 1000));
      const why = this.#disagreement();
      agreed = why === undefined ? agreed + 1 : 0;
      if (why !== undefined && this.timeline.nowSeconds >= end) {
        throw new Violation(`${QUIET_SECONDS_MAX} s after the last fault: ${why}`);
      }
      // One that was asked to sleep while its connection was bad may do so now.
      this.#wakeSleepers();
    }
  }

  #wakeSleepers(): void {
    for (const { name, engine } of this.#engines.values()) {
      if (engine.model.asleep) this.#wake(name);
    }
  }

  #disagreement(): string | undefined {
    const controller = this.#controller?.controller;
    if (controller === undefined) return "there is no controller";
    if (this.#engines.size < this.#profiles.size) return "an engine is missing";
    for (const process of this.#engines.values()) {
      if (process.engine.model.phase !== "serving") return `${process.name} doesn't serve`;
      if (process.engine.model.asleep) return `${process.name} sleeps`;
      const why = this.#ledger.difference(controller, process);
      if (why !== undefined) return `${process.name}: ${why}`;
    }
    return undefined;
  }

  async #end(): Promise<void> {
    for (const engine of this.#engines.values()) void engine.end();
    const ended = this.#controller?.end();
    await this.#until(this.timeline.nowSeconds + 3);
    await ended;
    this.#disk.check();
  }

  // ---------------------------------------------------------------- chance

  #note(line: string): void {
    const at = this.timeline.nowSeconds;
    this.#options.log?.(`${at.toFixed(3)} ${line}`);
    for (let place = 0; place < line.length; place++) {
      this.digest = (Math.imul(this.digest, 31) + line.charCodeAt(place)) | 0;
    }
    this.digest = (Math.imul(this.digest, 31) + Math.round(at * 1e6)) | 0;
  }

  #chance(share: number): boolean {
    return this.#random() < share;
  }

  #pick<T>(entries: readonly T[]): T {
    return entries[Math.floor(this.#random() * entries.length)] as T;
  }

  #anyName(): string {
    return this.#pick([...this.#profiles.keys()]);
  }
}
