"""The numbers of a run's history sent to TensorBoard or wandb, by way of Accelerate's trackers."""

from accelerate import tracking
from accelerate.utils import is_tensorboard_available, is_wandb_available

from helpers import files
from helpers.errors import CourseError
from helpers.ppo.config import TRLConfig
from helpers.ppo.parallel import processes
from helpers.ppo.run import History, Run

AVAILABLE = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}


def check_tracker(config: TRLConfig) -> None:
    """Check that the package of `train.tracker` is here, before any time is spent.

    Raises:
        CourseError: it is not; says how to install it.
    """
    name = config.train.tracker
    if name and not AVAILABLE[name]():
        raise CourseError(
            f"train.tracker is {name!r}, and the package {name} is not here: python -m helpers install {name}, or set "
            "train.tracker to null"
        )


def trackers(config: TRLConfig) -> list["Tracker"]:
    """The listener that `train.tracker` asks for, begun, in the main process; else none.

    Raises:
        CourseError: the tracker does not begin, in all processes.
    """
    if not config.train.tracker:
        return []
    tracker = Tracker(config)
    processes.on_main(tracker.begin)
    return [tracker] if processes.is_main() else []


class Tracker:
    """Listens to a run, and sends each row of its history once, under its step.

    A number is called as in the history, after its table: rounds/reward, updates/loss, evals/kl. A run that goes on from a
    checkpoint sends the rows from before too, so that its curves are whole.
    """

    def __init__(self, config: TRLConfig):
        self.config = config
        self.sent = dict.fromkeys(("rounds", "updates", "evals"), 0)

    def begin(self) -> None:
        """Open the tracker, which may ask for a login or need a network.

        Raises:
            CourseError: it does not open.
        """
        train = self.config.train
        folder = files.expand(train.logging_dir or train.checkpoint_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if train.tracker == "tensorboard":
                self.tracker = tracking.TensorBoardTracker(train.run_name or "tensorboard", folder)
            else:
                self.tracker = tracking.WandBTracker(
                    train.project_name,
                    name=train.run_name,
                    entity=train.entity_name,
                    group=train.group_name,
                    tags=train.tags,
                    config=self.config.to_dict(),
                    dir=str(folder),
                )
            self.tracker.start()
        # a login that is refused, a network that is not there, a folder that cannot be: errors of many kinds
        except Exception as error:
            raise CourseError(
                f"train.tracker {train.tracker!r} does not begin: {files.reason(error)}. Put that right, or set train.tracker to null."
            ) from error

    def start(self, trainer: Run) -> None: ...

    def progress(self, trainer: Run) -> None:
        history = trainer.history
        # a round's row is whole once its first update is made
        updated = history.updates[-1]["step"] if history.updates else 0
        self.send(history, sum(row["step"] < updated for row in history.rounds))

    def end(self, trainer: Run) -> None:
        self.send(trainer.history, len(trainer.history.rounds))
        self.tracker.finish()

    def send(self, history: History, rounds: int) -> None:
        """Send the rows that were not sent yet, and of `history.rounds` the first `rounds` at most, in the order of their steps."""
        waiting = []
        for table, begun in self.sent.items():
            rows = getattr(history, table)
            self.sent[table] = max(begun, rounds if table == "rounds" else len(rows))
            waiting += [(row["step"], table, row) for row in rows[begun : self.sent[table]]]
        for step, table, row in sorted(waiting, key=lambda item: item[0]):
            numbers = {
                f"{table}/{name}": value
                for name, value in row.items()
                if name not in ("step", "seconds_update")
            }
            self.tracker.log({name: value for name, value in numbers.items() if value is not None}, step=step)
