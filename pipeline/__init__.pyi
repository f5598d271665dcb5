from pipeline.tracking.api import TrackedFrame as TrackedFrame
from pipeline.tracking.api import track as track
