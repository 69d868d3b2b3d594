"""The operations, which programs call through `engine`, and the wiring that turns a configuration into parts."""
