"""Set every reasoning code of a folder of codes to 0: what is left for a codec without a reasoning branch."""

import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

for path in sorted(Path(sys.argv[1]).glob("codes-*.safetensors")):
    tensors = load_file(path)
    tensors["reasoning"][:] = 0
    save_file(tensors, path)
