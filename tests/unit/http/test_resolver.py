import socket

import pytest

from engine.http.resolver import ForbiddenAddress, PublicResolver


class Answers:
    """A resolver that says what it is told, each time the next."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        return [{"host": address} for address in self.answers.pop(0)]

    async def close(self) -> None:
        self.answers = None


async def test_a_name_that_begins_to_point_inwards_is_refused_at_that_moment():
    resolver = PublicResolver(Answers(["52.216.0.1"], ["52.216.0.1", "10.0.0.1"]), trusted_hosts=["api.example.com"])
    assert await resolver.resolve("s3.amazonaws.com")
    with pytest.raises(ForbiddenAddress) as caught:
        await resolver.resolve("s3.amazonaws.com")
    assert "10.0.0.1" in caught.value.strerror
    await resolver.close()


async def test_a_host_that_the_user_named_may_be_anywhere():
    resolver = PublicResolver(Answers(["10.0.0.1"]), trusted_hosts=["API.example.com"])
    assert await resolver.resolve("api.example.com")
