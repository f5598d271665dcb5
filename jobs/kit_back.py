"""Join the files that a kit returned: `vsdmot kit-back FOLDER WEIGHTS_FILE`.

Exit codes: 0 done; 1 a file is missing or damaged; 2 a bad setting.
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
        input: folder of the files that were copied back from the GPU machine.
        output: path NAME.safetensors for the weights; NAME.state.safetensors, NAME.log.jsonl and
            NAME.score.json are written to the same folder.
    """

    job: ClassVar[str] = "kit_back"
    about: ClassVar[str] = (
        "Join the weights and the training state that a kit returned from a GPU machine."
    )

    input: Annotated[str, NotEmpty()]
    output: Annotated[str, NotEmpty()]

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(KitBackConfig, argv)
    print_config(console, config)
    # Imported after the settings are checked, because torch takes seconds to import.
    from model.track.checkpoint import CheckpointError
    from model.track.tracker import Tracker
    from pipeline.kit.pieces import PieceError
    from pipeline.kit.returning import LOG, SCORE, ReturnError, read_back

    output = Path(config.output)
    folder, name = RunFolder(str(output.parent)), output.name.removesuffix(".safetensors")
    try:
        weights, state = read_back(config.input)
        folder.write(output.name, weights)
        folder.write(f"{name}.state.safetensors", state)
        for file in (LOG, SCORE):
            if (found := RunFolder(config.input).read(file)) is not None:
                folder.write(f"{name}.{file}", found)
        _, metadata = Tracker.load(output)
    except (ReturnError, PieceError, CheckpointError, OSError) as error:
        fail(str(error), EXIT_FAILED)
    console.print(
        f"{output}: {metadata.training.get('frames')} training frames in all", markup=False
    )
    for stage in _stages(Path(config.input, SCORE)):
        console.print_json(json.dumps(stage))
    return EXIT_DONE


def _stages(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        console.print(f"no {path.name}: the training command ended before it wrote figures")
        return []
    stages: list[dict[str, Any]] = json.loads(path.read_text())["stages"]
    return stages


if __name__ == "__main__":
    sys.exit(main())
