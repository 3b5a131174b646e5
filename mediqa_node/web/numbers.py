"""Numbers in addresses, within what a database column holds."""

from typing import Annotated

from fastapi import Form, Path, Query

LARGEST = 2**31 - 1

Number = Annotated[int, Path(ge=1, le=LARGEST)]
"""Of a series, a person, a room, a revision."""
Place = Annotated[int, Path(ge=0, le=99)]
"""Among the scored slices, from 0."""
Before = Annotated[int | None, Query(ge=1, le=LARGEST, description="only older ones than this number")]
After = Annotated[int, Query(ge=0, le=LARGEST)]
Back = Annotated[int, Form(ge=0, le=LARGEST)]
"""Of the chart to go back to; 0: to the list."""
