from . import ledger as ledger, options as options, statistics as statistics, trial as trial
from .grid import Grid as Grid
from .ledger import Ledger as Ledger, LedgerError as LedgerError
from .reporting import Report as Report
from .results import Results as Results
from .script import Current as Current, current as current
from .script_grid import ScriptGrid as ScriptGrid
from .study import compare as compare, report as report
