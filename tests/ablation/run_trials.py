"""Runs trials in a process of their own: `python run_trials.py < configs.json > results.json`."""

import json
import sys

from kbptt.ablation import trial

if __name__ == "__main__":
    results = []
    for config in json.load(sys.stdin):
        result = trial.execute(config)
        result["files"] = {
            name: b"hparams" in content for name, content in result.pop("files", {}).items()
        }
        results.append(result)
    json.dump(results, sys.stdout)
