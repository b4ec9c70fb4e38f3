"""The bucket that is a dictionary."""

from evaluation.in_process import Bucket


async def test_objects_are_listed_in_the_order_of_their_keys() -> None:
    bucket = Bucket()
    for key in ("acme/b", "acme/\uffff", "acme/\U00010000", "acme/a", "other/a", "acme/gone"):
        await bucket.put(key, b"x", "text/plain")
    await bucket.delete("acme/gone")
    first = await bucket.page("acme/", "", 2)
    assert [one.key for one in first.objects] == ["acme/a", "acme/b"]
    rest = await bucket.page("acme/", first.until or "", 2)
    assert [one.key for one in rest.objects] == ["acme/\uffff", "acme/\U00010000"]
    assert rest.until is None
    assert (await bucket.page("nobody/", "", 2)).objects == []
