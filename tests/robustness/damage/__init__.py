"""Ways in which a file gets damaged: each takes the path of a whole one and spoils it.

They are used as `from tests.robustness import damage as by`, `by.truncated(path)`, wherever they stand.
"""

from tests.robustness.damage.arrays import *  # noqa: F403
from tests.robustness.damage.checkpoints import *  # noqa: F403
from tests.robustness.damage.files import *  # noqa: F403
from tests.robustness.damage.images import *  # noqa: F403
from tests.robustness.damage.json_files import *  # noqa: F403
from tests.robustness.damage.pickles import *  # noqa: F403
