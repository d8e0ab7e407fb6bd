/**
 * Exports of `lazygraph/measure`: what an answer of a generating server came to, by the one
 * definition that `lazygraph bench` and `lazygraph record` count by, and how servers are addressed.
 */

export type { Answer, AnswerFailure, AnswerFailureKind, TallyOptions } from "./measure/answer.ts";
export {
  type AnswerReader,
  type AnswerReaderOptions,
  createAnswerReader,
  isEventStream,
} from "./measure/answer-reader.ts";
export { isGenerating } from "./measure/generating.ts";
export {
  ServerAddress,
  type ServerAddressOptions,
  serverUrl,
  shownUrl,
} from "./measure/server-address.ts";
