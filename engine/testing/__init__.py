"""For whoever writes a service, here or elsewhere: checks that it keeps what it promises to the engine.

With pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_the_service_conforms(check):
        await check(a_subject())

A description, which is a service without code, has checks of its own: `DESCRIPTION_CHECKS`, each over what `made_of` or
`read_description` returns; `python -m engine.testing FILE` makes them.
"""

from engine.testing.checks import CHECKS, Check
from engine.testing.description import DESCRIPTION_CHECKS, Description, made_of, read_description
from engine.testing.trial import PromiseBroken, SkippingClock, Subject

__all__ = [
    "CHECKS",
    "DESCRIPTION_CHECKS",
    "Check",
    "Description",
    "PromiseBroken",
    "SkippingClock",
    "Subject",
    "made_of",
    "read_description",
]
