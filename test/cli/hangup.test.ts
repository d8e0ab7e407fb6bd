import { expect, test } from "vitest";
import { isHangupIgnored, type ProcessFacts } from "../../src/cli/hangup.ts";

const PLAIN: ProcessFacts = {
  startedAs: "/usr/bin/node",
  parentStatus: "Name:\tbash\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n",
  stdinInfo: "pos:\t0\nflags:\t0100002\nmnt_id:\t26\n",
};

test.for<[string, Partial<ProcessFacts>, boolean]>([
  ["a plain start", {}, false],
  ["no /proc and no shell", { startedAs: undefined, parentStatus: "", stdinInfo: "" }, false],
  ["a parent that ignores it", { parentStatus: "SigIgn:\t0000000000001001\n" }, true],
  ["a parent that catches it", { parentStatus: "SigCgt:\t0000000000000001\n" }, false],
  ["nohup by name", { startedAs: "/usr/bin/nohup" }, true],
  ["another program's name", { startedAs: "/opt/nohup/bin/node" }, false],
  ["stdin from /dev/null", { stdinInfo: "flags:\t0100000\n" }, false],
  ["stdin that nohup has replaced", { stdinInfo: "flags:\t0100001\n" }, true],
])("%s", ([, facts, ignored]) => {
  expect(isHangupIgnored({ ...PLAIN, ...facts })).toBe(ignored);
});
