"""Which number the database gave an embedding model."""

from edda.errors import ProviderMisconfigured
from edda.models import EmbeddingModel
from edda.store.database import Database


async def find_model(database: Database, name: str, dimensions: int) -> EmbeddingModel:
    """The registered model. Raises ProviderMisconfigured: the migrate step registers what is configured."""
    async with database.transaction(None) as cursor:
        await cursor.execute(
            "SELECT model_id FROM embedding_models WHERE name = %s AND dimensions = %s", [name, dimensions]
        )
        row = await cursor.fetchone()
    if row is None:
        raise ProviderMisconfigured(f"The embedding model {name} with {dimensions} dimensions is not registered.")
    return EmbeddingModel(row["model_id"], name, dimensions)
