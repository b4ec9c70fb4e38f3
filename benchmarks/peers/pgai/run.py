"""pgai: its vectorizer's worker, over a table that holds the texts already, as Edda's messages name chunks.

users: everything at its default (50 texts a batch, one at a time). tuned: 512 a batch, 8 at a time.
"""

import asyncio
import os

import pgai
import psycopg
import tiktoken
from pgai.vectorizer import Worker
from pgai.vectorizer.vectorizer import TIKTOKEN_CACHE_DIR
from turn import Task, done, read_task, wait_for_go

MODEL = "text-embedding-3-small"
CREATE = f"""
SELECT ai.create_vectorizer(
    'benchmark'::regclass,
    loading => ai.loading_column('text'),
    chunking => ai.chunking_none(),
    embedding => ai.embedding_openai('{MODEL}', {{dimensions}}, base_url => '{{base_url}}'),
    processing => ai.processing_default(batch_size => {{batch}}, concurrency => {{at_once}}),
    destination => ai.destination_table('benchmark_embedding')
)
"""


def prepare(task: Task) -> None:
    batch, at_once = (50, 1) if task.variant == "users" else (512, 8)
    create = CREATE.format(dimensions=task.dimensions, base_url=task.base_url, batch=batch, at_once=at_once)
    with psycopg.connect(task.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE benchmark (id bigint PRIMARY KEY, text text NOT NULL)")
        with connection.cursor().copy("COPY benchmark FROM STDIN") as copy:
            for row in enumerate(task.texts):
                copy.write_row(row)
        connection.execute(create)
        if task.rest["live_index"]:
            connection.execute("CREATE INDEX ON benchmark_embedding_store USING hnsw (embedding vector_cosine_ops)")


def main() -> None:
    task = read_task()
    os.environ["TIKTOKEN_CACHE_DIR"] = TIKTOKEN_CACHE_DIR  # the wheel brings its tokenizer: nothing is fetched
    tiktoken.encoding_for_model(MODEL)  # and it is read before the start
    pgai.install(task.database_url)
    prepare(task)
    worker = Worker(task.database_url, once=True)
    wait_for_go()
    asyncio.run(worker.run())
    done()


if __name__ == "__main__":
    main()
