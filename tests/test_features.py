"""The core does without its features: each one is a folder, and lines in the roof that name it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import oban_sqla

FEATURES = ["doctor", "limits", "manage", "monitor", "on_change", "workflows"]
# The names of methods in Oban for Python, most of them of `manage`.
BESIDE = ["oban_names"]
ABOVE = ["bench", "cli", "testing", "web"]
CORE = "from oban_sqla import Oban, job; import oban_sqla.contrib.log, oban_sqla.migrations"


def test_the_core_can_be_imported_without_the_features(tmp_path: Path) -> None:
    package = tmp_path / "oban_sqla"
    source = Path(oban_sqla.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", *FEATURES, *ABOVE)
    shutil.copytree(source, package, ignore=ignored)
    gone: set[str] = set()
    for roof in ("__init__.py", "oban.py"):
        kept = []
        for line in (source / roof).read_text().splitlines():
            imported = re.match(r"from \.(?: import )?(\w+)(?:.* import (\w+))?", line)
            if imported and imported[1] in FEATURES + BESIDE:
                gone.add(str(imported[2]))
            elif line.strip(' ",') not in gone:
                kept.append(line)
        (package / roof).write_text("\n".join(kept))
    command = [sys.executable, "-c", CORE]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
