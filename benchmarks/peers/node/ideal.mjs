// Node as well as it can be: undici with as many connections as Edda, batches of Edda's size, vectors in base64 that
// become COPY's bytes without a float being parsed, one binary COPY that begins with the first answer. No retry is
// shared with anyone and nothing can be repeated: an ideal, not a pipeline.
import { once } from "node:events";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";
import { Pool } from "undici";

import { done, task, texts, waitForGo } from "./turn.mjs";

const BATCH = 128;
const CONNECTIONS = 32;
const ATTEMPTS = 6;

const provider = new Pool(new URL(task.base_url).origin, { connections: CONNECTIONS, pipelining: 1 });
const database = new pg.Client({ connectionString: task.database_url });
await database.connect();

await waitForGo();
const copy = database.query(copyFrom("COPY chunks (id, text, embedding) FROM STDIN (FORMAT binary)"));
const copied = once(copy, "finish");
copy.write(Buffer.concat([Buffer.from("PGCOPY\n\xff\r\n\0", "latin1"), Buffer.alloc(8)]));

async function ask(input) {
  const body = JSON.stringify({
    model: "text-embedding-3-small",
    input,
    dimensions: task.dimensions,
    encoding_format: "base64",
  });
  for (let attempt = 1; ; attempt++) {
    const response = await provider.request({
      path: "/v1/embeddings",
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body,
    });
    const answer = await response.body.text();
    if (response.statusCode === 200) return JSON.parse(answer).data;
    if (attempt === ATTEMPTS) throw new Error(`the provider answers ${response.statusCode}`);
    const asked = Number(response.headers["retry-after"] ?? 0) * 1000;
    await new Promise((over) => setTimeout(over, asked + Math.random() * 500 * 2 ** attempt));
  }
}

function rows(first, data) {
  const parts = [];
  data.forEach((item, index) => {
    const text = Buffer.from(texts[first + index]);
    const vector = Buffer.from(item.embedding, "base64").swap32();
    const head = Buffer.allocUnsafe(18);
    head.writeInt16BE(3, 0);
    head.writeInt32BE(8, 2);
    head.writeBigInt64BE(BigInt(first + index), 6);
    head.writeInt32BE(text.length, 14);
    const middle = Buffer.allocUnsafe(8);
    middle.writeInt32BE(vector.length + 4, 0);
    middle.writeUInt16BE(task.dimensions, 4);
    middle.writeUInt16BE(0, 6);
    parts.push(head, text, middle, vector);
  });
  return Buffer.concat(parts);
}

let next = 0;
async function work() {
  while (next < texts.length) {
    const first = next;
    next += BATCH;
    const data = await ask(texts.slice(first, first + BATCH));
    if (!copy.write(rows(first, data))) await once(copy, "drain");
  }
}

await Promise.all(Array.from({ length: CONNECTIONS }, work));
copy.end(Buffer.from([0xff, 0xff]));
await copied;
await done();
