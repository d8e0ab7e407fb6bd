/**
 * Where a policy's cost estimates start: a profile, set right by what earlier starts of this very
 * engine measured. Pure.
 */

import { median } from "../base/median.ts";
import { costSeedOf } from "../profile/cost-seed.ts";
import type { Profile } from "../profile/profile.ts";
import { type CostSeed, interpolate, type SeedRows } from "../schedule/costed/cost.ts";
import { STALL_SECONDS_MAX } from "../schedule/stall-budget.ts";
import type { Plan } from "./plan.ts";

/** Timed steps from which on a size's figure is the engine's own. */
const TIMED_MIN = 20;
/** A profile of another engine may be off by this much either way. */
const FOREIGN_ERROR_SHARE = 0.5;
/**
 * Ungraphed steps of another engine, until its own are timed, as a multiple of the profile's: 18 to
 * 28 ms where vLLM 0.26 took 10, on the same 8B under vLLM 0.33. Too high a prior is put right by
 * the first of them; too low a one runs them where a padded graph would serve.
 */
const FOREIGN_UNGRAPHED = 2.5;

/** What a profile must have in common with an engine to be its own. */
export type EngineKind = Pick<Profile["engine"], "model" | "vllmVersion">;

/** Of a profile, by whether it is an engine's own: the same for all engines that it is for. */
interface Seeds {
  readonly own: CostSeed;
  readonly foreign: CostSeed;
}

const seeds = new WeakMap<Profile, Seeds>();

function seedsOf(profile: Profile): Seeds {
  let known = seeds.get(profile);
  if (known === undefined) {
    const own = costSeedOf(profile);
    known = { own, foreign: foreignSeed(own) };
    seeds.set(profile, known);
  }
  return known;
}

/** @returns without a plan the same object for all engines of a kind: to be read only */
export function costSeedFor(profile: Profile, engine: EngineKind, plan?: Plan): CostSeed {
  const { own: seed, foreign } = seedsOf(profile);
  const known = plan === undefined ? seed : corrected(seed, plan);
  const { model, vllmVersion } = profile.engine;
  const own = known !== seed || (model === engine.model && vllmVersion === engine.vllmVersion);
  return own ? known : foreign;
}

/** The seed of an engine that nothing was measured on: the shape of another's costs. */
export function foreignSeed(seed: CostSeed): CostSeed {
  const ungraphed = scaled(seed.ungraphed, FOREIGN_UNGRAPHED);
  return { ...seed, ungraphed, errorShare: FOREIGN_ERROR_SHARE, foreign: true };
}

/** The same object where the plan has nothing to correct it by. */
function corrected(seed: CostSeed, { graphs, traffic }: Plan): CostSeed {
  const factorOf = (kind: "FULL" | "PIECEWISE", rows: SeedRows): number | undefined =>
    soundMedian(
      graphs
        .filter((graph) => graph.kind === kind && graph.timed >= TIMED_MIN)
        .map(({ tokens, stepSeconds }) => stepSeconds / interpolate(rows, tokens)),
    );
  const full = factorOf("FULL", seed.full);
  const piecewise = factorOf("PIECEWISE", seed.piecewise);
  const ungraphed = soundMedian(
    traffic
      .filter(({ ungraphedTimed }) => ungraphedTimed >= TIMED_MIN)
      .map((row) => row.ungraphedSeconds / interpolate(seed.ungraphed, row.tokens)),
  );
  const captures = new Map(seed.captures);
  for (const { id, captureMs } of graphs) {
    // By a longer one no later start would try it again.
    const seconds = (captureMs ?? 0) / 1000;
    if (seconds === 0 || seconds > STALL_SECONDS_MAX) continue;
    captures.set(id, { seconds });
  }
  const stepsKnown = [full, piecewise, ungraphed].some((factor) => factor !== undefined);
  if (!stepsKnown && graphs.every(({ captureMs }) => captureMs === undefined)) return seed;
  return {
    ...seed,
    // A kind that no step has tried is most likely off as the others are.
    full: scaled(seed.full, full ?? piecewise ?? ungraphed),
    piecewise: scaled(seed.piecewise, piecewise ?? full ?? ungraphed),
    ungraphed: scaled(seed.ungraphed, ungraphed ?? full ?? piecewise),
    captures,
  };
}

function scaled(rows: SeedRows, factor = 1): SeedRows {
  return factor === 1 ? rows : rows.map(([tokens, seconds]) => [tokens, seconds * factor] as const);
}

function soundMedian(values: readonly number[]): number | undefined {
  return median(values.filter((value) => value > 0 && Number.isFinite(value)));
}
