"""Copy a folder of codes without its long speech: short clips teach a small model to attend within minutes.

python short_clips.py CODES OUT [SECONDS]: speech up to SECONDS (1.6), sounds and music up to 5.1.
"""

import json
import shutil
import sys
from pathlib import Path

codes, out, longest = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 1.6
out.mkdir(parents=True, exist_ok=True)
for path in sorted(codes.iterdir()):
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [s for s in lines if (c := json.loads(s))["duration"] <= (longest if c["kind"] == "speech" else 5.1)]
        (out / path.name).write_text("".join(kept), encoding="utf-8")
    else:
        shutil.copyfile(path, out / path.name)
