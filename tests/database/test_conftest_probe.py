import pytest, psycopg
@pytest.mark.parametrize("i", range(10))
def test_x(database_urls, i):
    with psycopg.connect(database_urls.app) as c:
        print(c.execute("select current_user, version()").fetchone(), c.execute("select count(*) from documents").fetchone())
async def test_y(database_urls): 
    c = await psycopg.AsyncConnection.connect(database_urls.app)
    async with c:
        print(await (await c.execute("select 1")).fetchone())
