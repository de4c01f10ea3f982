"""The command line of every command, under a name that needs nothing of the core."""

from mae.options import asks_for_help as asks_for_help
from mae.options import option as option
from mae.options import read as read
