"""Jobs of resource managers that are not here: what their documentation says of environments and launch commands."""

from tests.managers.jobs import JOBS, DocumentedJob
from tests.managers.launchers import LAUNCHERS, install

__all__ = ["JOBS", "LAUNCHERS", "DocumentedJob", "install"]
