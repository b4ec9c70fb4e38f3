"""How fast Edda embeds, against whom, and how near to what the machine and the provider allow. See README.md."""
