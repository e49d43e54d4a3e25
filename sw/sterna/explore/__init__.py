"""How fast a configuration would run a model, without simulating it."""
