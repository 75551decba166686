"""Early stopping: training ends once a validation figure has not improved for a while (Prechelt 1998)."""

import dataclasses

from jaxcnn.errors import UserError


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """When training ends before its duration. Off while `patience` is 0.

    The figure is that of the raw net on the first evaluation split. A run that ended so is done, and its figures are
    those of its last step; the best checkpoint is kept beside it. Of seeds that train as one program each has an end of
    its own, and the others go on. The schedule is that of the whole duration.

    Example: Experiment(..., duration=epochs(200), early_stopping=EarlyStopping(patience=10, min_improvement=0.001))
    """

    patience: int = 0
    """Evaluations in a row that do not improve the figure; 0 is off."""
    metric: str | None = None
    """A metric of the task; None: its score, the first one that it shows."""
    min_improvement: float = 0.0
    """Of the figure over the best one so far, in its own units; less than that is none."""

    def __post_init__(self):
        if type(self.patience) is not int or self.patience < 0:
            raise UserError(
                f"early_stopping.patience is {self.patience!r}; it must be a whole number, at least 1, or 0 for off"
            )
        if not 0 <= self.min_improvement < float("inf"):
            raise UserError(f"early_stopping.min_improvement is {self.min_improvement}; it must not be negative")

    @property
    def on(self) -> bool:
        return self.patience > 0
