"""For whoever writes a service, here or elsewhere: checks that it keeps what it promises to the engine.

With pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_the_service_conforms(check):
        await check(a_subject())
"""

from engine.testing.checks import CHECKS, Check
from engine.testing.trial import PromiseBroken, SkippingClock, Subject

__all__ = ["CHECKS", "Check", "PromiseBroken", "SkippingClock", "Subject"]
