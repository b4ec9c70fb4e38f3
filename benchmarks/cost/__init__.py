"""What Edda costs, and how it grows: arithmetic on assumptions.toml. docs/cost-and-scale.md says more."""
