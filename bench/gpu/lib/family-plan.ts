/** Which cells a run of families.sh has, in which order, and whether one still fits. Pure. */

import type { Mode } from "../../../src/wire/protocol.ts";

/** How a server is started: as it is, with a vLLM setting of its own, or under our controller. */
const STOCK_ARMS = ["stock", "stock-plan", "stock-ten"] as const;
/** A mode of ours, with its default policy or one by name. */
const OUR_ARMS = ["eager", "lazy", "idle", "idle-simple", "idle-costed"] as const;
export const ARMS = [...STOCK_ARMS, ...OUR_ARMS] as const;
export type Arm = (typeof ARMS)[number];
export type OurArm = (typeof OUR_ARMS)[number];

export const KINDS = ["start", "parity", "verify", "tokens"] as const;
/**
 * start: a start, then decoding at fixed levels. parity: load that begins at ready. verify: every
 * graph against an ungraphed run. tokens: whole sequences against stock's, batch-invariant.
 */
export type Kind = (typeof KINDS)[number];

export interface Family {
  readonly name: string;
  /** A shape of random_model.py, or a model's folder. */
  readonly shape: string;
  /** Further arguments of `vllm serve`. */
  readonly args: readonly string[];
  /** Those of start cells only, which decode but don't look at single tokens. */
  readonly startArgs: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly gpus: number;
  /** Starts by arm. */
  readonly starts: Readonly<Partial<Record<Arm, number>>>;
  /** Starts before all others that fill compile caches and plans; not counted. */
  readonly warm: readonly Arm[];
  /** Rounds in which start cells decode as well; stock by hand never does. */
  readonly decodeRounds: number;
  /** Poisson arrivals a second, for how long, and rounds of the parity cells. */
  readonly parity?: {
    readonly rate: number;
    readonly seconds: number;
    readonly rounds: number;
    /** In this order: stock's load begins when idle mode was ready, so that one comes before. */
    readonly arms?: readonly Arm[];
  };
  readonly verify: boolean;
  /** Engine arguments of tokens.py; absent: no such cell. */
  readonly tokens?: readonly string[];
  /** For plans and limits until a start was measured. */
  readonly startSeconds: number;
}

export interface FamilyCell {
  readonly family: string;
  readonly kind: Kind;
  readonly arm: Arm;
  /** −1 is a warm-up. */
  readonly round: number;
}

export function isOurs(arm: Arm): arm is OurArm {
  return (OUR_ARMS as readonly Arm[]).includes(arm);
}

export function modeOf(arm: OurArm): Mode {
  return arm === "eager" || arm === "lazy" ? arm : "idle";
}

/** Whether this cell decodes at fixed levels after its start. */
export function decodes({ kind, arm, round }: FamilyCell, { decodeRounds }: Family): boolean {
  const byHand = arm === "stock-plan" || arm === "stock-ten";
  return kind === "start" && !byHand && round >= 0 && round < decodeRounds;
}

export function cellName({ family, kind, arm, round }: FamilyCell): string {
  return `${family}.${kind}.${round < 0 ? "warm" : round}.${arm}`;
}

const PARITY_ARMS = ["idle", "stock", "lazy"] as const;

/** Warm-ups, then rounds of all arms, each beginning with another one; then the other kinds. */
export function cellsOf(family: Family): FamilyCell[] {
  const cell = (kind: Kind, arm: Arm, round: number): FamilyCell => {
    return { family: family.name, kind, arm, round };
  };
  const cells = family.warm.map((arm) => cell("start", arm, -1));
  const arms = ARMS.filter((arm) => (family.starts[arm] ?? 0) > 0);
  const rounds = Math.max(0, ...arms.map((arm) => family.starts[arm] ?? 0));
  for (let round = 0; round < rounds; round += 1) {
    const order = arms.map((_, i) => arms[(i + round) % arms.length] as Arm);
    const wanted = order.filter((arm) => (family.starts[arm] ?? 0) > round);
    cells.push(...wanted.map((arm) => cell("start", arm, round)));
  }
  for (let round = 0; round < (family.parity?.rounds ?? 0); round += 1) {
    const parityArms = family.parity?.arms ?? PARITY_ARMS;
    cells.push(...parityArms.map((arm) => cell("parity", arm, round)));
  }
  if (family.verify) cells.push(cell("verify", "idle", 0));
  if (family.tokens !== undefined) {
    cells.push(cell("tokens", "stock", 0), cell("tokens", "idle", 0));
  }
  return cells;
}

/** Decoding at all levels, answers of a minute's load and the end of a server, generously. */
const BESIDE_START_SECONDS: Readonly<Record<Kind, number>> = {
  start: 35,
  parity: 95,
  verify: 30,
  tokens: 90,
};

/**
 * Seconds that a cell is expected to take.
 *
 * @param measured seconds from spawn to ready of this family's starts so far
 */
export function expectedSeconds(
  cell: FamilyCell,
  family: Family,
  measured: readonly number[],
): number {
  const start = measured.length === 0 ? family.startSeconds : Math.max(...measured);
  return start + BESIDE_START_SECONDS[cell.kind];
}

/** Families of one GPU side by side, the i-th of them on every lane-th GPU; larger ones after. */
export function lanesOf(
  families: readonly Family[],
  gpus: readonly number[],
): { readonly single: readonly Family[]; readonly spread: readonly Family[] } {
  const tooLarge = families.find((family) => family.gpus > gpus.length);
  if (tooLarge !== undefined) {
    throw new Error(
      `Expected ${tooLarge.gpus} GPUs for ${tooLarge.name}, got GPUS=${gpus.join(",")}: give more ` +
        "or leave it out with FAMILIES.",
    );
  }
  return {
    single: families.filter((family) => family.gpus === 1),
    spread: families.filter((family) => family.gpus > 1),
  };
}

/** @throws Error that names the first thing that is not as it should be */
export function parseFamilies(document: unknown): Family[] {
  const list = (document as { families?: unknown } | null)?.families;
  if (!Array.isArray(list)) throw new Error("Expected a list `families`, got none.");
  return list.map(parseFamily);
}

const FIELDS = [
  ...["name", "shape", "args", "startArgs", "env", "gpus", "starts", "warm", "decodeRounds"],
  ...["parity", "verify", "tokens", "startSeconds"],
];

function parseFamily(given: Partial<Family>): Family {
  const { name, shape } = given;
  if (typeof name !== "string" || !/^[\w-]+$/.test(name) || typeof shape !== "string") {
    throw new Error(`Expected a family with name and shape, got ${JSON.stringify(given)}.`);
  }
  const unknown = Object.keys(given).find((key) => !FIELDS.includes(key));
  if (unknown !== undefined) {
    throw new Error(`Expected ${FIELDS.join(", ")} of ${name}, got ${unknown}.`);
  }
  const arms = [
    ...Object.keys(given.starts ?? {}),
    ...(given.warm ?? []),
    ...(given.parity?.arms ?? []),
  ];
  const wrong = arms.find((arm) => !(ARMS as readonly string[]).includes(arm));
  if (wrong !== undefined) {
    throw new Error(`Expected arms of ${name} to be of ${ARMS.join(", ")}, got ${wrong}.`);
  }
  const { args = [], startArgs = [], env = {}, gpus = 1, starts = {}, warm = ["stock"] } = given;
  const { decodeRounds = Number.POSITIVE_INFINITY, verify = false, startSeconds = 90 } = given;
  return {
    ...{ ...given, name, shape, args, startArgs, env, gpus, starts, warm },
    ...{ decodeRounds, verify, startSeconds },
  };
}
