"""The settings of `vsdmot status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from model.settings import NotEmpty, Range, check


@dataclass(frozen=True, slots=True)
class StatusConfig:
    """Settings of `vsdmot status`.

    Attributes:
        output: folder or URL that a run writes to.
        watch: show it again every few seconds, until the run is over.
        every_s: seconds between two looks.
        json: print one JSON object a look, for programs.
        dead: greatest number of dead letters that are shown with their reasons.
    """

    job: ClassVar[str] = "status"
    about: ClassVar[str] = (
        "Say how far a run is: what is done, under way, dead and waiting, how fast it goes and how "
        "long it will take. It reads the output alone, so it can be asked on any machine."
    )

    output: Annotated[str, NotEmpty()]
    watch: bool = False
    every_s: Annotated[float, Range(1, 3600)] = 10.0
    json: bool = False
    dead: Annotated[int, Range(0, 500)] = 10

    def __post_init__(self) -> None:
        check(self)
