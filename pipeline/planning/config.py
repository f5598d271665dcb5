"""The settings of `vsdmot plan`: those of `vsdmot track`, and a few of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from model.settings import NotEmpty, Range, check
from pipeline.tracking.config import TrackConfig

CALIBRATION_S = 20.0


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How the plan is made.

    Attributes:
        seconds: time for a trial that tracks stretches of the archive's own videos here; 0: no
            trial; null: 20, or 0 where rate is given.
        listed: dead letters that are listed; null: all.
    """

    seconds: Annotated[float, Range(0, 600)] | None = None
    listed: Annotated[int, Range(0)] | None = 10

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class PlanConfig(TrackConfig):
    """Settings of `vsdmot plan`.

    Attributes:
        output: folder or URL that vsdmot track is to write; what is done there already drops out.
            Empty: a new one.
        rate: frames a second of one worker, for a machine that is not at hand; null: measured here.
        price_per_hour: price of an hour of one worker: of a GPU, without GPUs of a core. null: no
            cost is shown.
        currency: of the price, as it is shown.
        json: print JSON instead of text.
        plan: how the plan is made.
    """

    job: ClassVar[str] = "plan"
    about: ClassVar[str] = (
        "Say what vsdmot track would do with the same settings, how long it would take and what it "
        "would cost. Nothing is written."
    )

    output: str = ""
    rate: Annotated[float, Range(0, math.inf, above=True, below=True)] | None = None
    price_per_hour: Annotated[float, Range(0, math.inf, below=True)] | None = None
    currency: Annotated[str, NotEmpty()] = "USD"
    json: bool = False
    plan: PlanSettings = PlanSettings()

    @property
    def calibration_s(self) -> float:
        """Seconds for the trial."""
        if self.plan.seconds is not None:
            return self.plan.seconds
        return CALIBRATION_S if self.rate is None else 0.0
