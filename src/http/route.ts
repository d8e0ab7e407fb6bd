/** What a route of the HTTP side is, and what its answer is made from. */

import type { Controller } from "../controller/controller.ts";

/** What a request changed: an engine's mode, or that it is frozen. Announcements change nothing. */
export interface HttpChange {
  readonly action: "mode" | "freeze" | "sleep" | "wake";
  readonly engine: string;
  /** The new mode, the reason, or the options as JSON. */
  readonly value: string;
  /** Address of who asked; a proxy's where one is between. */
  readonly remote: string;
}

/** Metrics as text: a prom-client registry is one. */
export interface MetricsSource {
  readonly contentType: string;
  metrics(): Promise<string>;
}

/** How far a start is; `passed` where the phase that was asked for is over. */
export type StartReport =
  | {
      readonly ready: true;
      readonly passed: true;
      readonly readySeconds: number;
      readonly pastStarts: number;
    }
  | {
      readonly ready: false;
      readonly passed: boolean;
      readonly phase: string;
      readonly phaseSeconds: number;
      readonly elapsedSeconds: number;
      /** By past starts; undefined without any. */
      readonly leftSeconds: number | undefined;
      readonly pastStarts: number;
    };

/** Who watches a start. */
export interface StartSource {
  /** What `?until=` may name; another phase is refused. @default any */
  readonly phases?: readonly string[];
  /** @param until a phase, such as `weights` */
  report(until: string | undefined): Promise<StartReport>;
}

export interface Request {
  readonly changed: (action: HttpChange["action"], value: string) => void;
  readonly controller: Controller;
  readonly metrics: MetricsSource | undefined;
  readonly start: StartSource | undefined;
  readonly query: URLSearchParams;
  readonly engine: string;
  readonly body: unknown;
}

export interface Route {
  readonly method: "GET" | "PUT" | "POST";
  /** One capture group at most: the engine's name, still encoded. */
  readonly path: RegExp;
  /** Parameters of its query; others are refused. @default all are ignored, as probes expect */
  readonly parameters?: readonly string[];
  /** Its answer comes once an engine has done it, which may take minutes. @default false */
  readonly waits?: boolean;
  readonly answer: (request: Request) => unknown | Promise<unknown>;
}
