"""The commands, one operation each, and the wiring that turns a configuration into parts. Programs use `api`."""
