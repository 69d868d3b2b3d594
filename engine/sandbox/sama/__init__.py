"""Sama's task API as its vendor documents it; what nobody documents is this sandbox's choice."""
