"""Say how far a run of tracking is: ``vsdmot status /data/tracks``.

Exit codes: 0 shown; 1 the output cannot be reached; 2 a bad setting, or there is no run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from jobs.cli import EXIT_BAD_CONFIG, EXIT_DONE, EXIT_FAILED, console, fail, load_config
from pipeline.status.config import StatusConfig
from pipeline.storage.secrets import mask_secrets

if TYPE_CHECKING:
    from pipeline.status.read import RunStatus


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(StatusConfig, argv)
    # Imported after the settings are checked, because pyarrow takes a second to import.
    from pipeline.report.run_tables import NoRunError
    from pipeline.status.read import LISTEN_S, read_status
    from pipeline.storage.errors import StorageError

    def look() -> RunStatus:
        return read_status(config.output, config.dead, LISTEN_S)

    try:
        if config.json:
            _follow(config, look, _print_json)
        elif config.watch and console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                _follow(config, look, lambda status: live.update(_text(status), refresh=True))
        else:
            _follow(config, look, lambda status: console.print(_text(status), soft_wrap=True))
    except NoRunError as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except StorageError as error:
        fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:  # the usual way to end watching
        return EXIT_DONE
    return EXIT_DONE


def _follow(
    config: StatusConfig, look: Callable[[], RunStatus], show: Callable[[RunStatus], object]
) -> None:
    """Show the status, with `watch` again and again until the run is over."""
    while True:
        status = look()
        show(status)
        if status.over or not config.watch:
            return
        time.sleep(config.every_s)


def _print_json(status: RunStatus) -> None:
    values = asdict(status) | {"output": mask_secrets(status.output)}
    print(json.dumps(values), flush=True)


def _text(status: RunStatus) -> Text:
    from pipeline.status.lines import status_lines

    return Text(mask_secrets("\n".join(status_lines(status))))


if __name__ == "__main__":
    sys.exit(main())
