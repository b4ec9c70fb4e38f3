// What every contestant in Node does around its work: read its task, get warm, wait for the start, say what it did.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export const task = JSON.parse(readFileSync(process.argv[2], "utf8"));
export const texts = readFileSync(task.corpus, "utf8").split("\n").slice(0, task.chunks).map((line) => JSON.parse(line));

// Everything is imported and connected: from here on it counts.
export async function waitForGo() {
  console.log("ready");
  await lines.next();
}

// It counts until here. The harness looks at this process before it lets it end.
export async function done(said = {}) {
  console.log(JSON.stringify(said));
  await lines.next();
  process.exit(0);
}
