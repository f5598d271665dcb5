"""Make a folder that measures tracking on a GPU: `python -m jobs.gpu_kit video=bikes.mp4`.

Exit codes: 0 done; 1 the kit cannot be made; 2 a bad setting.
"""

import sys
from collections.abc import Sequence

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from pipeline.kit.speed_job import SpeedKitConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(SpeedKitConfig, argv)
    print_config(console, config)
    # Imported after the settings are checked, because torch takes seconds to import.
    from pipeline.kit.speed_kit import make_speed_kit
    from pipeline.storage.errors import StorageError

    try:
        kit = make_speed_kit(config)
    except (ValueError, OSError, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    folder = config.output.rstrip("/")
    parts = "part-0" if kit.parts == 1 else f"part-0 to part-{kit.parts - 1}"
    console.print(
        f"On a machine with a GPU, PyTorch and timm, copy {folder} ({parts}) there and run\n"
        f"    python3 {folder}/part-0/run.py --minutes 4.5\n"
        "It prints the figures and writes gpu-speed.json to $OUT, or to out beside the parts.",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
