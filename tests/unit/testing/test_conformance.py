"""Every service keeps what it promises to the engine, by the same checks."""

import pytest

from engine.testing import CHECKS

from .subjects import sama, seven_bridges, toy

SUBJECTS = {
    "sama, presigned": sama("presigned"),
    "sama, inline": sama("inline"),
    "sama, inline and marked": sama("inline", marked=True),
    "sevenbridges, run": seven_bridges(run=True),
    "sevenbridges, drafts": seven_bridges(run=False),
    "toy": toy(),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SUBJECTS)
async def test_the_service_keeps_its_promise(tmp_path, name, check):
    async with SUBJECTS[name](tmp_path) as subject:
        await check(subject)
