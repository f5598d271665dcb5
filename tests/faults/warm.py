"""Runs of the job in children of one warm process: a driver a second instead of one in ten.

Reads commands as JSON lines: start a run (with faults of `injected` in it), wait for one.
"""

import json
import os
import sys
import traceback


def serve() -> None:
    import torch

    import jobs.track
    import jobs.track_run

    torch.set_num_threads(1)
    from tests.faults import injected

    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], 0)
            print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.environ.update(command["environment"])
                for name, arguments in command["faults"]:
                    getattr(injected, name)(*arguments)
                code = jobs.track.main(command["argv"])
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(json.dumps(pid), flush=True)


if __name__ == "__main__":
    serve()
