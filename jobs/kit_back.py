"""Join what came back of a machine: `vsdmot kit-back FOLDER FILE`.

Exit codes: 0 done; 1 something is missing or damaged; 2 a bad setting.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from model.settings import NotEmpty, check
from pipeline.training.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class KitBackConfig:
    """Settings of `vsdmot kit-back`.

    Attributes:
        input: folder of what came back.
        output: weights file, NAME.safetensors; NAME.state.safetensors, NAME.log.jsonl and
            NAME.score.json go beside it.
    """

    job: ClassVar[str] = "kit_back"
    about: ClassVar[str] = "Join the weights and the training state that came back of a machine."

    input: Annotated[str, NotEmpty()]
    output: Annotated[str, NotEmpty()]

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(KitBackConfig, argv)
    print_config(console, config)
    # After the settings: torch takes seconds to import, and a spelling mistake should not.
    from model.track.checkpoint import CheckpointError
    from model.track.tracker import Tracker
    from pipeline.kit.pieces import PieceError
    from pipeline.kit.returning import LOG, SCORE, ReturnError, read_back

    output = Path(config.output)
    home, name = RunFolder(str(output.parent)), output.name.removesuffix(".safetensors")
    try:
        weights, state = read_back(config.input)
        home.write(output.name, weights)
        home.write(f"{name}.state.safetensors", state)
        for file in (LOG, SCORE):
            if (found := RunFolder(config.input).read(file)) is not None:
                home.write(f"{name}.{file}", found)
        _, metadata = Tracker.load(output)
    except (ReturnError, PieceError, CheckpointError, OSError) as error:
        fail(str(error), EXIT_FAILED)
    console.print(f"{output}: {metadata.training.get('frames')} frames seen in all", markup=False)
    for stage in _stages(Path(config.input, SCORE)):
        console.print_json(json.dumps(stage))
    return EXIT_DONE


def _stages(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        console.print(f"no {path.name}: the command was cut short before it was scored")
        return []
    stages: list[dict[str, Any]] = json.loads(path.read_text())["stages"]
    return stages


if __name__ == "__main__":
    sys.exit(main())
