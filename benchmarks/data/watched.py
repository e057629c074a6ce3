"""The build that the scale benchmark watches: `.. watched SOURCE OUT SETTINGS` prints one line of JSON.

Workers import this file too, so it is as light as a command is.
"""

import json
import resource
import sys
from pathlib import Path


def main(source: str, out: str, settings: str) -> None:
    from benchmarks.report import resident_bytes
    from sluice.data.build import build
    from sluice.data.config import IngestConfig, RefineConfig

    # The text is extracted already: headings, items and code stand in it as in Markdown.
    ingest = IngestConfig.model_validate({"sources": [{"uri": source, "markup": "md"}]})
    report = build(ingest, RefineConfig.model_validate_json(settings), Path(out))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    told = {
        "documents": report.refine.documents_in,
        "kept": report.refine.documents_kept,
        "cpu_s": sum(each.ru_utime + each.ru_stime for each in used),
        "largest_process_bytes": max(resident_bytes(peak=True), used[1].ru_maxrss * 1024),
        "timings": {**report.ingest.timings, **report.refine.timings},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
