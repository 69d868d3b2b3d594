"""The services: one file each, with all that is known of their words on the wire."""
