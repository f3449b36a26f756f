"""`python -m tests.defects [name ...]` tries seeded defects; `--page` only writes docs/defects.md."""

import sys

from tests.defects import catalog, run

if sys.argv[1:] == ["--page"]:
    catalog.PAGE.write_text(catalog.page())
else:
    sys.exit(min(run.main(sys.argv[1:]), 1))
