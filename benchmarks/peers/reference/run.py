"""One request after another and one COPY, with the standard library and psycopg. For the tests of the harness."""

import base64
import json
import struct
import urllib.request

import psycopg
from turn import Task, done, read_task, wait_for_go

BATCH = 32


def embed(task: Task, texts: list[str]) -> list[list[float]]:
    body = {"model": "m", "input": texts, "dimensions": task.dimensions, "encoding_format": "base64"}
    request = urllib.request.Request(
        f"{task.base_url}/embeddings", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        data = json.load(answer)["data"]
    layout = f"<{task.dimensions}f"
    return [list(struct.unpack(layout, base64.b64decode(item["embedding"]))) for item in data]


def main() -> None:
    task = read_task()
    with psycopg.connect(task.database_url, autocommit=True) as connection:
        wait_for_go()
        with connection.cursor().copy("COPY chunks (id, text, embedding) FROM STDIN") as copy:
            for start in range(0, len(task.texts), BATCH):
                texts = task.texts[start : start + BATCH]
                for number, (text, vector) in enumerate(zip(texts, embed(task, texts), strict=True), start):
                    copy.write_row((number, text, str(vector)))
        done()


if __name__ == "__main__":
    main()
