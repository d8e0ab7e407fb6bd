/**
 * The graphs that a simulated engine holds: which are captured, whether there is room for another
 * one, and which of them serves a step. Pure.
 */

import type { Graph, StepShape } from "../../base/graph.ts";
import type { Profile } from "../../profile/profile.ts";
import type { DispatchTable } from "../../schedule/policy.ts";
import { CompiledDispatch } from "./dispatch.ts";
import { EngineMemory, type SimulatedGpu } from "./memory.ts";

export interface CapturedGraph {
  readonly graph: Graph;
  readonly ms: number;
  readonly bytes: number;
}

export class HeldGraphs {
  /** All that the engine can capture, by id. */
  readonly planned: ReadonlyMap<string, Graph>;
  readonly captured: Map<string, CapturedGraph> = new Map();
  readonly memory: EngineMemory;
  /** What captures must leave free. */
  marginBytes: number;
  /** Bumped by each change of the captured set. */
  epoch = 0;
  readonly #dispatch = new CompiledDispatch();
  #table: DispatchTable = { uniform: [], mixed: [] };

  constructor(profile: Profile, gpu: SimulatedGpu, marginBytes: number) {
    this.planned = new Map(profile.captures.costs.map(({ graph }) => [graph.id, graph]));
    this.memory = new EngineMemory(profile, gpu);
    this.marginBytes = marginBytes;
  }

  get freeBytes(): number {
    return this.memory.gpu.freeBytes;
  }

  setTable(table: DispatchTable): void {
    this.#table = table;
    this.#compile();
  }

  /** The graph that serves this step; undefined: ungraphed. */
  pick(step: StepShape): Graph | undefined {
    return this.#dispatch.pick(step);
  }

  /** With a reservation the engine's headroom counts, without one the device's free memory. */
  hasRoom(graph: Graph, reservedBytes?: number): boolean {
    const fits = this.memory.needBytes(graph) + this.marginBytes <= this.freeBytes;
    if (reservedBytes === undefined) return fits;
    return fits && reservedBytes <= this.memory.headroomBytes(this.marginBytes);
  }

  /** Why `hasRoom` said no, as a sentence. */
  shortage(graph: Graph, reservedBytes?: number): string {
    const need = Math.max(this.memory.needBytes(graph), reservedBytes ?? 0);
    if (reservedBytes === undefined) {
      return `Not enough GPU memory: ${this.freeBytes} bytes are free, ${need} are needed.`;
    }
    const headroom = this.memory.headroomBytes(this.marginBytes);
    return (
      `Not enough headroom: ${headroom} bytes of ${this.freeBytes} free are not wanted by serving ` +
      `or the margin, ${need} are needed.`
    );
  }

  /** @param seconds that capturing it took */
  hold(graph: Graph, seconds: number): CapturedGraph {
    const held = { graph, ms: seconds * 1000, bytes: this.memory.take(graph) };
    this.captured.set(graph.id, held);
    this.epoch++;
    this.#compile();
    return held;
  }

  /**
   * Call only when the memory's `whyNotDrop` finds nothing.
   *
   * @returns bytes that came back
   */
  drop(ids: readonly string[]): number {
    for (const id of ids) this.captured.delete(id);
    this.epoch += ids.length;
    this.#compile();
    return this.memory.drop(ids);
  }

  #compile(): void {
    const captured = new Map([...this.captured].map(([id, { graph }]) => [id, graph]));
    this.#dispatch.compile(this.#table, captured);
  }
}
