// Node as the startup does it: an Express handler takes a document's chunks, asks for every embedding at once, one
// request each, and flushes all rows through its ORM (MikroORM) in one unit of work.
import { EntitySchema, MikroORM, Type } from "@mikro-orm/core";
import { PostgreSqlDriver } from "@mikro-orm/postgresql";
import express from "express";
import OpenAI from "openai";

import { done, task, texts, waitForGo } from "./turn.mjs";

class VectorType extends Type {
  convertToDatabaseValue(value) {
    return JSON.stringify(value);
  }
  convertToJSValue(value) {
    return JSON.parse(value);
  }
  getColumnType() {
    return `vector(${task.dimensions})`;
  }
}

const Chunk = new EntitySchema({
  name: "Chunk",
  tableName: "chunks",
  properties: {
    id: { type: "bigint", primary: true },
    text: { type: "text" },
    embedding: { type: VectorType },
  },
});

const orm = await MikroORM.init({
  driver: PostgreSqlDriver,
  clientUrl: task.database_url,
  entities: [Chunk],
  allowGlobalContext: false,
});
await orm.em.fork().execute("SELECT 1");
const openai = new OpenAI({ baseURL: task.base_url, apiKey: "benchmark" });

const app = express();
app.use(express.json({ limit: "1gb" }));
app.post("/documents", async (request, response) => {
  const em = orm.em.fork();
  const embeddings = await Promise.all(
    request.body.chunks.map(async (text) => {
      const answer = await openai.embeddings.create({
        model: "text-embedding-3-small",
        input: text,
        dimensions: task.dimensions,
      });
      return answer.data[0].embedding;
    }),
  );
  request.body.chunks.forEach((text, id) => em.persist(em.create(Chunk, { id, text, embedding: embeddings[id] })));
  await em.flush();
  response.json({ chunks: embeddings.length });
});
app.use((error, request, response, next) => {
  console.error(error.message);
  response.status(500).json({ error: error.message });
});
const server = app.listen(0, "127.0.0.1");
await new Promise((listening) => server.once("listening", listening));

await waitForGo();
const answer = await fetch(`http://127.0.0.1:${server.address().port}/documents`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ chunks: texts }),
});
if (!answer.ok) {
  console.error(await answer.text());
  process.exit(1);
}
await done(await answer.json());
