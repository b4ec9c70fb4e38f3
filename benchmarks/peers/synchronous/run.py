"""What the startup left: Django and OpenAI's client, one thing after another.

users: for each chunk a request, then a row. tuned: batches of 128 in 32 threads, and `bulk_create`.
"""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import django
from django.conf import settings
from openai import OpenAI
from turn import done, read_task, wait_for_go

BATCH = 128
THREADS = 32

task = read_task()
url = urlsplit(task.database_url)
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.path[1:],
            "USER": url.username,
            "PASSWORD": url.password,
            "HOST": url.hostname,
            "PORT": url.port,
        }
    }
)
django.setup()

from django.db import connection, models  # noqa: E402 - after Django has its settings
from pgvector.django import VectorField  # noqa: E402 - likewise


class Chunk(models.Model):
    id = models.BigIntegerField(primary_key=True)
    text = models.TextField()
    embedding = VectorField(dimensions=task.dimensions)

    class Meta:
        app_label = "benchmark"
        db_table = "chunks"
        managed = False


client = OpenAI(base_url=task.base_url, api_key="benchmark")


def embed(texts: list[str]) -> list[list[float]]:
    answer = client.embeddings.create(model="text-embedding-3-small", input=texts, dimensions=task.dimensions)
    return [item.embedding for item in answer.data]


def as_users_do() -> None:
    for number, text in enumerate(task.texts):
        (vector,) = embed([text])
        Chunk.objects.create(id=number, text=text, embedding=vector)


def tuned() -> None:
    starts = range(0, len(task.texts), BATCH)
    with ThreadPoolExecutor(THREADS) as threads:
        batches = threads.map(lambda start: embed(task.texts[start : start + BATCH]), starts)
        for start, vectors in zip(starts, batches, strict=True):
            Chunk.objects.bulk_create(
                Chunk(id=number, text=task.texts[number], embedding=vector)
                for number, vector in enumerate(vectors, start)
            )


connection.ensure_connection()
wait_for_go()
as_users_do() if task.variant == "users" else tuned()
done()
