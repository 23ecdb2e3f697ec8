"""Runs trials in a process of their own: `python run_trials.py < configs.json > results.json`."""

import json
import sys

from kbptt.ablation import trial

# Whether these are in a file is passed on, not the file.
WORDS = "hparams", "dead_units"

if __name__ == "__main__":
    results = []
    for config in json.load(sys.stdin):
        result = trial.execute(config, health=config.pop("health", False))
        result["files"] = {
            name: [word for word in WORDS if word.encode() in content]
            for name, content in result.pop("files", {}).items()
        }
        results.append(result)
    json.dump(results, sys.stdout)
