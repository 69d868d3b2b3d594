"""Any bulk API, as a description says it in TOML: `kind = "http"`, and the kinds that are shipped as such a file.

`settings` has the tables of a description, `consistency` what goes together in them, `texts` and `paths` the two small
languages in it, `body` and `rules` what is sent and what an answer means, `service` the service that comes of it.
`shipped` imports next to nothing, since every command asks it which kinds there are.
"""
