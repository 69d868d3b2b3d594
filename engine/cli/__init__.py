"""The command line: `app` declares the commands; it calls operations of `engine`, and nothing imports it."""
