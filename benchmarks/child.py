"""One run in a fresh process: ``child.py TASK RESULT``, both files of JSON. Started by ``run.py``, never by hand.

Workers of peers that start fresh interpreters import this file again, as their ``__main__``: it must stay light.
"""

if __name__ == "__main__":
    import json
    import sys
    from pathlib import Path

    import workload

    sent = json.loads(Path(sys.argv[1]).read_text())
    task = workload.Task(**{**sent["task"], "folder": Path(sent["task"]["folder"])})
    chosen = next(one for one in workload.load(sent["module"]) if one.name == sent["workload"])
    Path(sys.argv[2]).write_text(json.dumps(chosen.measure(task)))
