"""The pipeline's stages, one script each: `python -m stages.NAME`."""

import logging

from tradeoffs.common import cores
from tradeoffs.plumbing import lacking

# At import it asks for an optional kernel from the hub, and of int8 layers it says that they round activations. Set
# here, before the first import of any stage.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Before anything loads OpenMP, which reads it once.
cores.wait_politely()

lacking.while_importing()
