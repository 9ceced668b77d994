"""What something travels for, by which its reducers differ: see `ordmap.reducers`."""

from __future__ import annotations

from typing import Literal

__all__ = ["INPUT", "JOB", "PURPOSES", "RESULT", "Purpose"]

#: A plain text, since it is looked up for each result.
Purpose = Literal["job", "input", "result"]

JOB: Purpose = "job"
INPUT: Purpose = "input"
RESULT: Purpose = "result"
PURPOSES = (JOB, INPUT, RESULT)
