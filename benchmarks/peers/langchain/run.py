"""LangChain: OpenAIEmbeddings into its Postgres store.

users: `PGVector.add_texts`, everything at its default. tuned: batches of 128 embedded 32 at once, each added when it
is there, on the asynchronous store.

`check_embedding_ctx_length=False` in both: otherwise the client fetches a tokenizer and sends token numbers, which few
but OpenAI take.
"""

import asyncio

from langchain_openai import OpenAIEmbeddings
from langchain_postgres import PGVector
from turn import Task, done, read_task, wait_for_go

BATCH = 128
AT_ONCE = 32


def embeddings(task: Task) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(
        model="text-embedding-3-small",
        dimensions=task.dimensions,
        base_url=task.base_url,
        api_key="benchmark",
        check_embedding_ctx_length=False,
    )


def store(task: Task) -> PGVector:
    return PGVector(
        embeddings(task),
        connection=task.database_url.replace("postgresql://", "postgresql+psycopg://"),
        collection_name="benchmark",
        embedding_length=task.dimensions,
        async_mode=task.variant == "tuned",
        create_extension=False,
        engine_args={"pool_size": AT_ONCE} if task.variant == "tuned" else {},
    )


def index(task: Task) -> None:
    """As its users make one: by hand."""
    import psycopg

    with psycopg.connect(task.database_url, autocommit=True) as connection:
        connection.execute("CREATE INDEX ON langchain_pg_embedding USING hnsw (embedding vector_cosine_ops)")


def as_users_do(task: Task) -> None:
    built = store(task)
    if task.rest["live_index"]:
        index(task)
    wait_for_go()
    built.add_texts(task.texts)
    done()


async def tuned(task: Task) -> None:
    built = store(task)
    await built.__apost_init__()  # connects, and makes the tables
    if task.rest["live_index"]:
        index(task)
    wait_for_go()
    room = asyncio.Semaphore(AT_ONCE)

    async def add(texts: list[str]) -> None:
        async with room:
            await built.aadd_texts(texts)

    async with asyncio.TaskGroup() as group:
        for start in range(0, len(task.texts), BATCH):
            group.create_task(add(task.texts[start : start + BATCH]))
    done()


if __name__ == "__main__":
    given = read_task()
    as_users_do(given) if given.variant == "users" else asyncio.run(tuned(given))
