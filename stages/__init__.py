"""The pipeline's stages, one script each: `python -m stages.NAME`."""

import logging

# At import it asks for an optional kernel from the hub, and it says of int8 layers that they round activations. Set here,
# since this runs before the first import of a stage.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
