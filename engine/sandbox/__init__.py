"""The services, served locally: HTTP requests enter, the vendors' answers leave; a TOML file says how they behave."""
