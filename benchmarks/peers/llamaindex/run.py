"""LlamaIndex: an IngestionPipeline of OpenAI embeddings into PGVectorStore.

users: `pipeline.run`, everything at its default. tuned: `arun`, batches of 128, 32 at once.
"""

import asyncio

from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.vector_stores.postgres import PGVectorStore
from turn import Task, done, read_task, wait_for_go

INDEX = {"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40, "hnsw_dist_method": "vector_cosine_ops"}


def build(task: Task) -> tuple[IngestionPipeline, PGVectorStore]:
    address = task.database_url.removeprefix("postgresql://")
    store = PGVectorStore.from_params(
        connection_string=f"postgresql+psycopg2://{address}",
        async_connection_string=f"postgresql+asyncpg://{address}",
        table_name="benchmark",
        embed_dim=task.dimensions,
        hnsw_kwargs=INDEX if task.rest["live_index"] else None,
    )
    options = {"embed_batch_size": 128, "num_workers": 32} if task.variant == "tuned" else {}
    embedding = OpenAIEmbedding(
        model="text-embedding-3-small",
        dimensions=task.dimensions,
        api_base=task.base_url,
        api_key="benchmark",
        **options,
    )
    return IngestionPipeline(transformations=[embedding], vector_store=store, disable_cache=True), store


def main() -> None:
    task = read_task()
    pipeline, store = build(task)
    nodes = [TextNode(text=text) for text in task.texts]
    store._initialize()  # connects, and makes the table
    wait_for_go()
    if task.variant == "users":
        pipeline.run(nodes=nodes)
    else:
        asyncio.run(pipeline.arun(nodes=nodes))
    done()


if __name__ == "__main__":
    main()
