/**
 * Streams as servers and proxies send them, each with what is right: one table for the reader, the
 * benchmark, the recorder and the example gateway.
 */

import { CONTENT } from "./content-shapes.ts";
import { ENDINGS } from "./ending-shapes.ts";
import { FAILURES } from "./failing-shapes.ts";
import { FORMATS } from "./format-shapes.ts";
import { PACKED } from "./packed-shapes.ts";
import type { Shape } from "./shape.ts";
import { SPELLING } from "./spelling-shapes.ts";

export const SHAPES: readonly Shape[] = [
  ...CONTENT,
  ...SPELLING,
  ...ENDINGS,
  ...FAILURES,
  ...FORMATS,
  ...PACKED,
];
