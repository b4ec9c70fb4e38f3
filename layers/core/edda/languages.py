def language_of(text: str, media_type: str) -> str | None:
    return None
