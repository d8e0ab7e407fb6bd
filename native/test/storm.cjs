/**
 * The addon under a sanitizer: watches, surveys and failing calls on several threads that are
 * terminated in the middle of them. Run by native/sanitize.sh with ADDON and LIBRARY set.
 */

const { isMainThread, parentPort, Worker } = require("node:worker_threads");

const addon = require(process.env.ADDON);
const library = process.env.LIBRARY;
const options = {
  uuid: "GPU-a",
  intervalMs: 1,
  belowBytes: 500,
  hysteresisBytes: 100,
  withinSeconds: 0,
};

async function storm() {
  const session = await addon.open(library);
  for (let i = 0; i < 10; i += 1) {
    session.watch(options, () => {
      session.read("GPU-a");
      if (i === 3) throw new Error("thrown into the addon");
    });
  }
  parentPort.postMessage("running");
  for (;;) {
    const surveys = [session.devices(), session.devices(), session.devices()];
    session.watch(options, () => {}).close();
    await Promise.all(surveys);
  }
}

async function main() {
  const session = await addon.open(library);
  let events = 0;
  for (let i = 0; i < 5; i += 1) {
    session.watch(options, () => {
      events += 1;
    });
  }
  for (let round = 0; round < 10; round += 1) {
    const workers = [1, 2, 3].map(() => new Worker(__filename));
    await Promise.all(workers.map((one) => new Promise((done) => one.once("message", done))));
    await Promise.all(workers.map((one) => one.terminate()));
  }
  for (let i = 0; i < 300; i += 1) {
    const watch = session.watch(options, () => {});
    watch.close();
    await watch.closed;
    await addon.open("/nowhere").catch(() => {});
  }
  session.close();
  if (events === 0) throw new Error("no event came");
  console.log("addon storm: all passed");
}

void (isMainThread ? main() : storm());
