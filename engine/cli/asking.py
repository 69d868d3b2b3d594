"""Asks the questions of `init`, and takes answers from the command line in their place. Only a terminal is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import typer

from engine.cli.output.screen import say
from engine.cli.signals import breakable
from engine.commands.init import AskedQuestion, answer_flaw, questions
from engine.model.errors import BulkSubmitError
from engine.progress.text import printable


def gather(kind: str, given: Mapping[str, str], *, yes: bool) -> dict[str, str]:
    """Return an answer to each question about a service, by key.

    Args:
        kind: of the service.
        given: what the command line says, by key.
        yes: proposals are taken without asking.

    Raises:
        typer.BadParameter: an answer is missing and nobody can be asked, or what the command line says cannot be used.
    """
    answers: dict[str, str] = {}
    missing: list[AskedQuestion] = []
    for asked in questions(kind):
        question = asked.question
        if (said := given.get(question.key)) is not None:
            if flaw := answer_flaw(kind, asked, said, answers):
                raise typer.BadParameter(f"{asked.option}: {flaw}")
            answers[question.key] = said
        elif not all(answers.get(key, "") in fitting for key, fitting in question.where.items()):
            continue
        elif question.asked and yes and (question.proposal or not question.needed):
            answers[question.key] = question.proposal
        elif question.asked and sys.stdin.isatty():
            answers[question.key] = _ask(kind, asked, answers)
        elif question.asked and question.needed:
            missing.append(asked)
    if missing:
        raise typer.BadParameter(_missing(missing))
    return answers


def _missing(missing: list[AskedQuestion]) -> str:
    options = ", ".join(asked.option for asked in missing)
    proposed = [asked for asked in missing if asked.question.proposal]
    proposals = ", ".join(f"{asked.option} {asked.question.proposal}" for asked in proposed)
    return f"nobody can be asked here: say {options}{f'; --yes takes {proposals}' if proposals else ''}"


def _ask(kind: str, asked: AskedQuestion, answers: Mapping[str, str]) -> str:
    return _prompt(
        asked.question.text,
        asked.question.proposal,
        lambda answer: answer_flaw(kind, asked, answer, answers),
        needed=asked.question.needed,
    )


def ask_for_source() -> Path | None:
    """Ask for a file with records; None if there is none yet."""

    def flaw(answer: str) -> str:
        return "" if Path(answer).is_file() else "there is no such file"

    answer = _prompt("File with your records, if you have it", "", flaw, needed=False)
    return Path(answer) if answer else None


def _prompt(text: str, proposal: str, flaw: Callable[[str], str], *, needed: bool) -> str:
    """Ask until the answer can be used; return it, or "" where none is needed.

    Raises:
        BulkSubmitError: whoever was asked has left.
    """
    default = proposal or (None if needed else "")
    while True:
        try:
            with breakable():
                shown = bool(proposal)
                answer = str(typer.prompt(printable(text), default, show_default=shown, err=True)).strip()
        except (typer.Abort, KeyboardInterrupt):
            raise BulkSubmitError("nothing was written") from None
        if not answer and not needed:
            return ""
        if answer and not (wrong := flaw(answer)):
            return answer
        say(printable(wrong) if answer else "an answer is needed")
