"""One module for each family of file formats: bytes in, text with its structure out."""
