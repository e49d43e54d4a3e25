"""What runs a model token by token: the engine contract, golden and fast host engines, the driver of accelerators."""
