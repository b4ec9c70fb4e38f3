"""The stack on one machine: `make local` and `make demo`. See docs/local.md."""
